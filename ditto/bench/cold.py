"""Cold start: from starting a process to a first token."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time

FIRST_TOKEN = "first token:"
_LONGEST_SECONDS = 240


def cold_seconds(*arguments: str) -> float:
    """Start a process (`ditto.cli.first_token`) for `arguments` and wait for its first token.

    Raises:
        RuntimeError: the process fails, or takes several minutes.
    """
    command = [sys.executable, "-m", "ditto.cli.first_token", *arguments]
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
