"""Attention as TensorRT's native layer."""

from __future__ import annotations

import torch

from ditto.lowering.lower import Lowering
from ditto.network.graph import Value
from ditto.network.layers import Attention, Concatenation, ElementWise

_HALF_WIDTH_STEP = 8


def fused_attention(
    net: Lowering, query: Value, key: Value, value: Value, scale: float, causal: bool, mask: Value | None
) -> Value:
    """Attention as one layer.

    Zeros fill up heads of half precision whose width is not a multiple of 8: with those, TensorRT-RTX 1.6 fails to
    build some networks, and on an H200 it computes others wrongly where a batch has several rows.

    Args:
        query: [B, H, S, D].
        key, value: [B, G, K, D] and [B, G, K, V]; V is at most D.
        mask: bool [B, 1, S, K].
    """
    width, columns = int(key.spec.shape[3]), int(value.spec.shape[3])  # type: ignore[arg-type]
    if query.spec.dtype != torch.float32:
        width = -(-width // _HALF_WIDTH_STEP) * _HALF_WIDTH_STEP
    if scale != 1.0:
        query = net.add(ElementWise("PROD"), query, net.operand(scale, query.spec.dtype, 4))
    # TensorRT wants values as wide as keys.
    wide = (_filled_up(net, each, width) for each in (query, key, value))
    result = net.add(Attention(causal), *wide, *([] if mask is None else [mask]))
    return result if columns == width else net.slice(result, 3, 0, columns)


def _filled_up(net: Lowering, heads: Value, width: int) -> Value:
    """Heads [B, H, S, D] with zeros behind their values, [B, H, S, width]."""
    missing = width - int(heads.spec.shape[3])  # type: ignore[arg-type]
    if not missing:
        return heads
    zeros = net.box(net.operand(0, heads.spec.dtype, 4), (0, 0, 0, 0), (*heads.spec.shape[:3], missing), (0, 0, 0, 0))
    return net.add(Concatenation(3), heads, zeros)
