"""A process that generates a first token, for `ditto bench`.

`python -m ditto.cli.first_token tree OUT SESSION`, or `python -m ditto.cli.first_token model MODEL DTYPE`.
"""

from __future__ import annotations

import sys

from ditto.cli.startup import collect_seldom, keep_bytecode, start_driver


def main(kind: str, what: str, how: str) -> None:
    """Generate the first token for a short prompt, with an image if supported.

    A tree starts as in `ditto run`; bytecode is cached for trees and models alike.
    """
    keep_bytecode()
    if kind == "tree":
        collect_seldom()
        if how != "reference":
            start_driver()
    from ditto.bench.cold import FIRST_TOKEN
    from ditto.bench.first import first_token, first_token_of_model, open_system
    from ditto.engine import EngineTree

    if kind == "tree":
        tree = EngineTree.open(what)
        token = first_token(open_system(tree, how), tree)
    else:
        token = first_token_of_model(what, how)
    print(FIRST_TOKEN, token, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
