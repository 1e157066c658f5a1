"""Small integers of quantised weights: unpacked from the words of checkpoints."""

from __future__ import annotations

import torch
from torch import Tensor


def unpack(words: Tensor, bits: int, order: tuple[int, ...]) -> Tensor:
    """Unpack the unsigned integers along the last axis, and subtract half of their range.

    Args:
        words: int32 or uint8, the lowest bits first.
        bits: of each integer, 4 or 8.
        order: position within a word of each of its integers, for words that are not in natural order; else empty.
    Returns:
        int8, from -8 to 7 or from -128 to 127.
    """
    values = words.contiguous().view(torch.uint8)
    if bits == 4:
        values = torch.stack((values & 15, values >> 4), -1).flatten(-2)
    if order:
        values = values.unflatten(-1, (-1, len(order)))[..., list(order)].flatten(-2)
    return values.view(torch.int8) - 8 if bits == 4 else (values ^ 128).view(torch.int8)


def packed_nibbles(values: Tensor) -> Tensor:
    """Pack int4 values in row-major order, two per byte, the first in the lower half: TensorRT's form.

    Args:
        values: of dtype int4, one value per byte; an even number of them.
    """
    pairs = values.view(torch.uint8).reshape(-1, 2)
    return (pairs[:, 0] & 15) | (pairs[:, 1] << 4)
