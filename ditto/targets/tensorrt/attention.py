"""Attention in TensorRT's own layers: fused where the layer can say it, written out where it cannot."""

from __future__ import annotations

import torch

from ditto.lowering.lower import Lowering
from ditto.network.graph import Value
from ditto.network.layers import Activation, Attention, ElementWise, MatrixMultiply, Select, Softmax

# Added to no score: replaces those of keys that a query does not see. Finite, so that no row becomes NaN.
UNSEEN = -1e30


def fused(
    net: Lowering, query: Value, key: Value, value: Value, scale: float, causal: bool, mask: Value | None
) -> Value:
    """Attention as one layer. query [B, H, S, D], key and value [B, G, K, D], mask bool [B, 1, S, K]."""
    scaled = query
    if scale != 1.0:
        scaled = net.add(ElementWise("PROD"), query, net.operand(scale, query.spec.dtype, 4))
    return net.add(Attention(causal), scaled, key, value, *([] if mask is None else [mask]))


def written_out(
    net: Lowering, query: Value, key: Value, value: Value, scale: float, softcap: float, mask: Value | None
) -> Value:
    """Attention step by step, softmax in float32: for soft-caps, which the layer does not know. Query heads that share
    a KV head are a third axis, so that keys and values are not repeated."""
    batch, heads, length, width = query.spec.shape
    _, kv_heads, keys, _ = key.spec.shape
    assert isinstance(heads, int) and isinstance(kv_heads, int)
    grouped = net.reshape(query, (batch, kv_heads, heads // kv_heads, length, width))
    shared = (net.reshape(tensor, (batch, kv_heads, 1, keys, width)) for tensor in (key, value))
    key_rows, value_rows = shared
    scores = net.cast(net.add(MatrixMultiply(transpose_y=True), grouped, key_rows), torch.float32)
    scores = net.add(ElementWise("PROD"), scores, net.operand(scale / softcap if softcap else scale, torch.float32, 5))
    if softcap:
        bounded = net.add(Activation("TANH"), scores)
        scores = net.add(ElementWise("PROD"), bounded, net.operand(softcap, torch.float32, 5))
    if mask is not None:
        seen = net.reshape(mask, (*mask.spec.shape[:1], 1, 1, *mask.spec.shape[2:]))
        scores = net.add(Select(), seen, scores, net.operand(UNSEEN, torch.float32, 5))
    weights = net.cast(net.add(Softmax(axis=4), scores), query.spec.dtype)
    return net.reshape(net.add(MatrixMultiply(), weights, value_rows), query.spec.shape)
