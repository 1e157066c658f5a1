"""Work on the GPU beside other work."""

from __future__ import annotations

from collections.abc import Callable

import torch


class SideStream:
    """A stream beside torch's current one. In a CUDA graph it becomes a branch.

    Args:
        device: the GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        self._last: torch.cuda.Event | None = None

    def run(self, work: Callable[[], None]) -> None:
        """Do work after what is in the current stream, and beside what comes there, which waits for earlier work of
        this kind."""
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            work()
        done = torch.cuda.Event()
        done.record(self._stream)
        self.join()
        self._last = done

    def join(self) -> None:
        """Let what comes in the current stream wait for all work done so."""
        if self._last is not None:
            torch.cuda.current_stream(self._stream.device).wait_event(self._last)
            self._last = None
