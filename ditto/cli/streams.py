"""stdout and stderr: complete output of a command, or an error."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

from ditto.errors import OutputError


class _Stream:
    """A stream that escapes characters missing in its encoding as `\\x..`, like Python's own stderr.

    Args:
        inner: the underlying stream.
        needed: whether a failed write is an error; if not, the text is dropped and work continues.
    Raises:
        OutputError: a write failed.
        BrokenPipeError: the reader has closed the pipe.
    """

    def __init__(self, inner: Any, needed: bool) -> None:
        self._inner, self._needed = inner, needed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def write(self, text: str) -> int:
        """Write text."""
        encoding = getattr(self._inner, "encoding", None) or "utf-8"
        try:
            text.encode(encoding)
        except UnicodeEncodeError:
            text = text.encode(encoding, "backslashreplace").decode(encoding)
        with self._checked():
            self._inner.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the written text."""
        with self._checked():
            self._inner.flush()

    @contextmanager
    def _checked(self) -> Generator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            _redirect_to_null(self._inner)
            if not self._needed:
                return
            if isinstance(error, BrokenPipeError):
                raise
            reason = getattr(error, "strerror", None) or str(error)
            raise OutputError(f"stdout cannot be written: {reason}", remedy="send it elsewhere") from error


@contextmanager
def optional_stderr() -> Generator[None]:
    """Context in which text that cannot be written to stderr is dropped."""
    for name in ("stdin", "stderr"):
        if getattr(sys, name) is None:  # else the next opened file would get its file descriptor
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115
    with redirect_stderr(_Stream(sys.stderr, needed=False)):
        yield


@contextmanager
def checked_stdout() -> Generator[None]:
    """Context in which failed writes to stdout are errors.

    Raises:
        OutputError: stdout is closed, or a write failed.
        BrokenPipeError: the reader has closed the pipe.
    """
    if sys.stdout is None:
        raise OutputError("stdout is closed", remedy="send it to a file, or to /dev/null")
    with redirect_stdout(_Stream(sys.stdout, needed=True)) as out:
        try:
            yield
        except SystemExit:  # raised by argparse after printing
            out.flush()
            raise
        out.flush()


def _redirect_to_null(stream: Any) -> None:
    """Redirect a stream's file to the null device.

    Otherwise Python's flush at exit would fail again.
    """
    try:
        number = stream.fileno()
    except (OSError, ValueError, AttributeError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)
