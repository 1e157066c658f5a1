"""Attention as TensorRT's native layer."""

from __future__ import annotations

from ditto.lowering.lower import Lowering
from ditto.network.graph import Value
from ditto.network.layers import Attention, ElementWise


def fused_attention(
    net: Lowering, query: Value, key: Value, value: Value, scale: float, causal: bool, mask: Value | None
) -> Value:
    """Attention as one layer.

    Args:
        query: [B, H, S, D].
        key, value: [B, G, K, D].
        mask: bool [B, 1, S, K].
    """
    scaled = query
    if scale != 1.0:
        scaled = net.add(ElementWise("PROD"), query, net.operand(scale, query.spec.dtype, 4))
    return net.add(Attention(causal), scaled, key, value, *([] if mask is None else [mask]))
