"""Copies from memory-mapped files to the GPU through pinned staging buffers.

A plain copy of pageable memory goes through a small buffer of the driver, filled by one thread. Here all cores fill
large pinned buffers in turn, and one is transferred while the next is filled.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

_BUFFER_BYTES = 64 << 20
_BUFFERS = 3


class StagedCopier:
    """A copier of tensors to a GPU, in order with torch's current stream.

    Args:
        device: the GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        buffers = [torch.empty(_BUFFER_BYTES, dtype=torch.uint8, pin_memory=True) for _ in range(_BUFFERS)]
        self._ring = itertools.cycle([(buffer, torch.cuda.Event()) for buffer in buffers])

    def __call__(self, tensor: Tensor) -> Tensor:
        """Copy a tensor to the GPU; the source may change once the call has returned."""
        result = torch.empty(tensor.shape, dtype=tensor.dtype, device=self._device)
        if not tensor.numel():
            return result
        source, target = (part.reshape(-1).view(torch.uint8) for part in (tensor.contiguous(), result))
        for start in range(0, len(source), _BUFFER_BYTES):
            buffer, emptied = next(self._ring)
            part = source[start : start + _BUFFER_BYTES]
            emptied.synchronize()
            filled = buffer[: len(part)].copy_(part)
            target[start : start + len(part)].copy_(filled, non_blocking=True)
            emptied.record(torch.cuda.current_stream(self._device))
        return result
