"""Wall time of work on a device: the median of repeats, with an idle device before and after each."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

# Work that has taken this long is not repeated.
_ENOUGH_SECONDS = 5.0
# Shorter work is timed in bursts, so that the cost of reading the clock vanishes.
_BURST_SECONDS = 0.05


def wait_for(device: torch.device) -> None:
    """Wait until a device is idle."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def milliseconds(work: Callable[[], object], device: torch.device, repeats: int = 5, burst: bool = False) -> float:
    """The median time of `work` in milliseconds; run it once before.

    Args:
        repeats: at most; fewer if they take long.
        burst: run `work` several times between two readings of the clock, where results stay on the device.
    """
    count = 1
    if burst:
        count = max(1, min(50, int(_BURST_SECONDS / max(_seconds(work, device, 1), 1e-9))))
    taken: list[float] = []
    while len(taken) < repeats and sum(taken) * count < _ENOUGH_SECONDS:
        taken.append(_seconds(work, device, count))
    return statistics.median(taken) * 1e3


def _seconds(work: Callable[[], object], device: torch.device, count: int) -> float:
    wait_for(device)
    start = time.perf_counter()
    for _ in range(count):
        work()
    wait_for(device)
    return (time.perf_counter() - start) / count
