"""A CUDA stream for work that runs concurrently with the current stream."""

from __future__ import annotations

from collections.abc import Callable

import torch


class SideStream:
    """A second stream, concurrent with torch's current one; a branch in a CUDA graph.

    Args:
        device: the GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        self._last: torch.cuda.Event | None = None

    def run(self, work: Callable[[], None]) -> None:
        """Run work after the current stream's work, concurrently with later work of that stream.

        The later work waits for earlier runs on the side stream.
        """
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            work()
        done = torch.cuda.Event()
        done.record(self._stream)
        self.join()
        self._last = done

    def join(self) -> None:
        """Make later work in the current stream wait for all work on the side stream."""
        if self._last is not None:
            torch.cuda.current_stream(self._stream.device).wait_event(self._last)
            self._last = None
