"""CUDA graphs of work that is repeated many times, and the order of work in streams."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

import torch
from loguru import logger

from ditto.errors import DeviceError

Work = Callable[[], None]


def capture(work: Work) -> Work:
    """Capture `work` into a CUDA graph in torch's current stream, without running it.

    Returns:
        The replay of the graph.
    Raises:
        RuntimeError, DeviceError: the work contains something that a graph cannot record.
    """
    torch.cuda.current_stream().synchronize()
    graph = torch.cuda.CUDAGraph()
    # Other threads, such as TensorRT-RTX's kernel compilation, may make calls that capture forbids in this thread.
    graph.capture_begin(capture_error_mode="thread_local")
    try:
        work()
    finally:
        graph.capture_end()
    return graph.replay


class GraphedCallable:
    """A callable that becomes a CUDA graph after its first calls.

    The first calls run directly, to finish preparations of first use; then the work is captured, and later calls
    replay the graph. If capture fails, the work keeps running directly, and the log says why.

    Args:
        work: reads and writes the same memory in each call.
        record: captures the work.
        plain_times: number of direct calls before capture.
    """

    def __init__(self, work: Work, record: Callable[[Work], Work] = capture, plain_times: int = 1) -> None:
        self._work, self._record, self._left = work, record, plain_times
        self._run = work

    @property
    def is_recorded(self) -> bool:
        """Whether calls replay a CUDA graph."""
        return self._run is not self._work

    def __call__(self) -> None:
        """Run the work once."""
        if self._left == 0:
            try:
                self._run = self._record(self._work)
            except (RuntimeError, DeviceError) as error:
                logger.info("without a CUDA graph: {}", str(error).splitlines()[0])
        self._left -= 1
        self._run()


@contextmanager
def in_order(stream: torch.cuda.Stream) -> Generator[None]:
    """Context in which torch's work runs in a stream, in order with the work around it."""
    outer = torch.cuda.current_stream(stream.device)
    if outer == stream:
        yield
        return
    stream.wait_stream(outer)
    with torch.cuda.stream(stream):
        yield
    outer.wait_stream(stream)
