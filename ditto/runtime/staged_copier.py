"""From mapped files to the GPU at the speed of the bus.

A plain copy of pageable memory goes through a small buffer of the driver's, filled by one thread. Here all cores fill
large page-locked buffers in turn, and the bus empties one while the next is filled.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

_BUFFER_BYTES = 64 << 20
_BUFFERS = 3


class StagedCopier:
    """Copies tensors to a GPU, in order with torch's current stream.

    Args:
        device: the GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        buffers = [torch.empty(_BUFFER_BYTES, dtype=torch.uint8, pin_memory=True) for _ in range(_BUFFERS)]
        self._ring = itertools.cycle([(buffer, torch.cuda.Event()) for buffer in buffers])

    def __call__(self, tensor: Tensor) -> Tensor:
        """The same numbers on the GPU. What they are copied from may change once the call has returned."""
        made = torch.empty(tensor.shape, dtype=tensor.dtype, device=self._device)
        if not tensor.numel():
            return made
        source, target = (part.reshape(-1).view(torch.uint8) for part in (tensor.contiguous(), made))
        for start in range(0, len(source), _BUFFER_BYTES):
            buffer, emptied = next(self._ring)
            part = source[start : start + _BUFFER_BYTES]
            emptied.synchronize()
            filled = buffer[: len(part)].copy_(part)
            target[start : start + len(part)].copy_(filled, non_blocking=True)
            emptied.record(torch.cuda.current_stream(self._device))
        return made
