"""From starting a process to a first token.

`python -m ditto.bench.cold tree OUT SESSION`, or `python -m ditto.bench.cold model MODEL DTYPE`.
"""

from __future__ import annotations

import subprocess
import sys
import time

FIRST_TOKEN = "first token:"
_LONGEST_SECONDS = 240


def cold_seconds(*arguments: str) -> float:
    """Start a process for `arguments` and wait for its first token.

    Raises:
        RuntimeError: the process fails.
        TimeoutExpired: it takes minutes.
    """
    start = time.perf_counter()
    command = [sys.executable, "-m", "ditto.bench.cold", *arguments]
    made = subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST_SECONDS)
    seconds = time.perf_counter() - start
    if made.returncode or FIRST_TOKEN not in made.stdout:
        last = (made.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"the new process ended with {made.returncode}: {last}")
    return seconds


def main(kind: str, what: str, how: str) -> None:
    """Make a first token of a short prompt, with a picture where the model takes one."""
    from ditto.bench.first import first_token, first_token_of_model, open_contender
    from ditto.engine import EngineTree

    if kind == "tree":
        tree = EngineTree.open(what)
        token = first_token(open_contender(tree, how), tree)
    else:
        token = first_token_of_model(what, how)
    print(FIRST_TOKEN, token, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
