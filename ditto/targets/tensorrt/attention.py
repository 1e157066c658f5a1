"""Attention as TensorRT's native layer."""

from __future__ import annotations

from ditto.lowering.lower import Lowering
from ditto.network.graph import Value
from ditto.network.layers import Attention, Concatenation, ElementWise


def fused_attention(
    net: Lowering, query: Value, key: Value, value: Value, scale: float, causal: bool, mask: Value | None
) -> Value:
    """Attention as one layer.

    Args:
        query: [B, H, S, D].
        key, value: [B, G, K, D] and [B, G, K, V]; V is at most D.
        mask: bool [B, 1, S, K].
    """
    width, columns = int(key.spec.shape[3]), int(value.spec.shape[3])  # type: ignore[arg-type]
    if columns < width:  # TensorRT wants values as wide as keys
        shape = (*value.spec.shape[:3], width - columns)
        zeros = net.box(net.operand(0, value.spec.dtype, 4), (0, 0, 0, 0), shape, (0, 0, 0, 0))
        value = net.add(Concatenation(3), value, zeros)
    scaled = query
    if scale != 1.0:
        scaled = net.add(ElementWise("PROD"), query, net.operand(scale, query.spec.dtype, 4))
    result = net.add(Attention(causal), scaled, key, value, *([] if mask is None else [mask]))
    return result if columns == width else net.slice(result, 3, 0, columns)
