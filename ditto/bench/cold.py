"""Cold start: from starting a process to a first token.

`python -m ditto.bench.cold tree OUT SESSION`, or `python -m ditto.bench.cold model MODEL DTYPE`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time

from ditto.start import collect_seldom, keep_bytecode, start_driver

FIRST_TOKEN = "first token:"
_LONGEST_SECONDS = 240


def cold_seconds(*arguments: str) -> float:
    """Start a process for `arguments` and wait for its first token.

    Raises:
        RuntimeError: the process fails, or takes several minutes.
    """
    command = [sys.executable, "-m", "ditto.bench.cold", *arguments]
    start = time.perf_counter()
    with (
        tempfile.TemporaryFile("w+", errors="replace") as errors,  # an unread pipe may fill up
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        watch = threading.Timer(_LONGEST_SECONDS, process.kill)
        watch.start()
        try:
            assert process.stdout is not None
            lines = (line for line in process.stdout if line.startswith(FIRST_TOKEN))
            seconds = next((time.perf_counter() - start for _ in lines), None)
            process.wait()
        finally:
            watch.cancel()  # a running timer would keep this process alive
        errors.seek(0)
        messages = errors.read()
    if process.returncode or seconds is None:
        last = (messages.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"the new process ended with {process.returncode}: {last}")
    return seconds


def main(kind: str, what: str, how: str) -> None:
    """Generate a first token after a short prompt, with an image if the model has a vision tower. A tree starts as it
    does in `ditto run`; bytecode is cached for both."""
    keep_bytecode()
    if kind == "tree":
        collect_seldom()
        if how != "reference":
            start_driver()
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
