"""Small integers of quantised weights: unpacked from the words of checkpoints."""

from __future__ import annotations

import torch
from torch import Tensor

# Values of the codes of E2M1; the highest bit is the sign.
_E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)


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


def unpack_signed(packed: Tensor) -> Tensor:
    """Unpack signed 4-bit integers (two's complement) along the last axis.

    Args:
        packed: uint8, the first of two integers in the lower half.
    Returns:
        int8, from -8 to 7.
    """
    return unpack(packed ^ 0x88, 4, ())


def unpack_halves(packed: Tensor) -> Tensor:
    """Unpack unsigned 4-bit integers along the last axis, and subtract 8.

    Args:
        packed: uint8; the lower halves hold the first half of the integers, the upper halves the second.
    Returns:
        int8, from -8 to 7.
    """
    return torch.cat((packed & 15, packed >> 4), -1).view(torch.int8) - 8


def unpack_e2m1(packed: Tensor) -> Tensor:
    """Unpack FP4 values in E2M1 (a sign, two bits of exponent, one of mantissa) along the last axis.

    Args:
        packed: uint8, the first of two values in the lower half.
    Returns:
        float8_e4m3fn, which holds each of them exactly.
    """
    codes = unpack(packed, 4, ()).long() + 8
    return torch.tensor(_E2M1, device=codes.device)[codes].to(torch.float8_e4m3fn)


def packed_nibbles(values: Tensor) -> Tensor:
    """Pack int4 values in row-major order, two per byte, the first in the lower half: TensorRT's form.

    Args:
        values: of dtype int4, one value per byte; an even number of them.
    """
    pairs = values.view(torch.uint8).reshape(-1, 2)
    return (pairs[:, 0] & 15) | (pairs[:, 1] << 4)
