"""Resident memory, as Linux counts it: of this process, and of a command while it runs."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen
from typing_extensions import override

_SECONDS_BETWEEN_LOOKS = 0.02


def _status(field: str, process: int | str = "self") -> int:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


def resident_bytes(process: int | str = "self") -> int:
    """Now."""
    return _status("VmRSS", process)


def peak_bytes() -> int:
    """The most so far."""
    return _status("VmHWM")


@frozen
class Measured:
    """A command's wall and processor time, and the most memory that it and the processes that it began had resident: of
    their own, and with mapped files, where what they share counts for each."""

    seconds: float
    processor: float
    anonymous: int
    resident: int
    code: int

    @override
    def __str__(self) -> str:
        failed = f"   FAILED with exit code {self.code}" if self.code else ""
        return (
            f"{self.seconds:7.1f} s   processor {self.processor:7.1f} s   anonymous {self.anonymous / 1e9:6.2f} GB   "
            f"resident {self.resident / 1e9:6.2f} GB{failed}"
        )


def measured(command: Sequence[str]) -> Measured:
    """Run a command with its output on stderr, and look at its memory while it runs."""
    start, before = time.perf_counter(), _children_seconds()
    process = subprocess.Popen(command, stdout=sys.stderr.fileno(), env=os.environ)
    anonymous = resident = 0
    while process.poll() is None:
        try:
            family = _with_children(process.pid)
            anonymous = max(anonymous, sum(_status("RssAnon", each) for each in family))
            resident = max(resident, sum(_status("VmHWM", each) for each in family))
        except (OSError, LookupError):  # one has ended
            pass
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    code = process.wait()
    used = [now - earlier for now, earlier in zip(_children_seconds(), before, strict=True)]
    return Measured(time.perf_counter() - start, sum(used), anonymous, resident, code)


def _with_children(process: int) -> list[int]:
    lines = [path.read_text() for path in Path(f"/proc/{process}/task").glob("*/children")]
    return [process, *(found for line in lines for child in line.split() for found in _with_children(int(child)))]


def _children_seconds() -> tuple[float, float]:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime, used.ru_stime
