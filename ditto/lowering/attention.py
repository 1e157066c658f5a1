"""Shared parts of attention lowerings: named arguments, masks outside a decoder, decomposed attention.

B batch, H heads, G KV heads, S sequence, K keys, D head width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ditto.errors import UnsupportedFeature
from ditto.lowering.lower import Lowering, Operand
from ditto.lowering.registry import LoweringFunction
from ditto.network.graph import Value
from ditto.network.layers import Activation, ElementWise, MatrixMultiply, Select, Softmax
from ditto.ops.attention import AttentionArguments

# Replaces the scores of keys that a query does not attend to. Finite, so that no row becomes NaN.
MASKED_SCORE = -1e30


def by_name(function: Callable[[Lowering, AttentionArguments[Operand]], Value]) -> LoweringFunction:
    """Turn a function of named attention arguments into a lowering of `ditto.attention`."""

    def lowering(net: Lowering, *args: Any, **kwargs: Any) -> Value:
        return function(net, AttentionArguments(*args, **kwargs))

    return lowering


def refuse_sinks(sinks: Operand | None) -> None:
    """Refuse attention sinks.

    Raises:
        UnsupportedFeature: the attention has sinks.
    """
    if sinks is not None:
        raise UnsupportedFeature(
            "attention has learned sinks", remedy="models with attention sinks are not supported on this target"
        )


def attention_mask(net: Lowering, given: AttentionArguments[Operand]) -> Value | None:
    """The mask of attention outside a decoder: bool [B, 1, S, K], or None.

    Raises:
        UnsupportedFeature: sinks, a window, a bias on the scores, or causal attention with a mask or a softcap.
    """
    refuse_sinks(given.sinks)
    if given.window or (given.causal and (given.softcap or given.mask is not None)):
        raise UnsupportedFeature("windowed or soft-capped causal attention outside a decoder")
    return None if given.mask is None else _whole_mask(net, given.mask, net.value(given.query), net.value(given.key))


def _whole_mask(net: Lowering, mask: Operand, query: Value, key: Value) -> Value:
    value = net.value(mask)
    if value.spec.dtype != torch.bool:
        raise UnsupportedFeature("attention scores get an added bias")
    wanted = (query.spec.shape[0], 1, query.spec.shape[2], key.spec.shape[2])
    value = net.reshape(value, (1,) * (4 - value.rank) + value.spec.shape)
    if any(have not in (1, want) for have, want in zip(value.spec.shape, wanted, strict=True)):
        raise UnsupportedFeature("an attention mask that differs between heads")
    strides = tuple(0 if have == 1 and want != 1 else 1 for have, want in zip(value.spec.shape, wanted, strict=True))
    return value if value.spec.shape == wanted else net.box(value, (0, 0, 0, 0), wanted, strides)


def decomposed_attention(
    net: Lowering, query: Value, key: Value, value: Value, scale: float, softcap: float, mask: Value | None
) -> Value:
    """Attention decomposed into elementary layers, with softmax in float32.

    Query [B, H, S, D], key and value [B, G, K, D], mask bool [B, 1, S, K]. Query heads that share a KV head are a third
    axis, so that keys and values are not repeated.
    """
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
        scores = net.add(Select(), seen, scores, net.operand(MASKED_SCORE, torch.float32, 5))
    weights = net.cast(net.add(Softmax(axis=4), scores), query.spec.dtype)
    return net.reshape(net.add(MatrixMultiply(), weights, value_rows), query.spec.shape)
