"""Work that is repeated many times, as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable

import torch
from loguru import logger

from ditto.errors import DeviceError

Work = Callable[[], None]


def capture(work: Work) -> Work:
    """What `work` does on the GPU, recorded in torch's current stream without being done, as one launch.

    Raises:
        RuntimeError, DeviceError: something in it cannot be recorded.
    """
    torch.cuda.current_stream().synchronize()
    graph = torch.cuda.CUDAGraph()
    # Other threads (TensorRT-RTX compiles kernels in some) may go on with calls that are not allowed in this one.
    graph.capture_begin(capture_error_mode="thread_local")
    try:
        work()
    finally:
        graph.capture_end()
    return graph.replay


class GraphedCallable:
    """Work that reads and writes the same memory each time.

    It is done as it is at first, so that whatever is prepared on first use is ready; it is recorded before the time
    after that, and replayed from then on. Where it cannot be recorded it is done as it is, and the log says why.

    Args:
        work: to be done.
        record: how it is recorded.
        plain_times: how often it is done as it is.
    """

    def __init__(self, work: Work, record: Callable[[Work], Work] = capture, plain_times: int = 1) -> None:
        self._work, self._record, self._left = work, record, plain_times
        self._run = work

    @property
    def is_recorded(self) -> bool:
        """Whether it is replayed."""
        return self._run is not self._work

    def __call__(self) -> None:
        """Do it once."""
        if self._left == 0:
            try:
                self._run = self._record(self._work)
            except (RuntimeError, DeviceError) as error:
                logger.info("without a CUDA graph: {}", str(error).splitlines()[0])
        self._left -= 1
        self._run()
