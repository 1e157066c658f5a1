"""A process that generates a first token, for `ditto bench`.

`python -m ditto.cli.first_token tree OUT SESSION`, or `python -m ditto.cli.first_token model OUT MODEL DTYPE` for
Hugging Face's model with the images and prompts of a tree.
"""

from __future__ import annotations

import sys

from ditto.cli.startup import collect_seldom, keep_bytecode, start_driver


def main(kind: str, directory: str, what: str, dtype: str = "") -> None:
    """Generate the first token for a short prompt, with an image if supported.

    A tree starts as in `ditto run`; bytecode is cached for trees and models alike.
    """
    keep_bytecode()
    if kind == "tree":
        collect_seldom()
        if what != "reference":
            start_driver()
    from ditto.bench.cold import FIRST_TOKEN
    from ditto.bench.first import first_token, open_model, open_system
    from ditto.engine import EngineTree

    tree = EngineTree.open(directory)
    token = first_token(open_system(tree, what) if kind == "tree" else open_model(what, dtype, tree), tree)
    print(FIRST_TOKEN, token, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
