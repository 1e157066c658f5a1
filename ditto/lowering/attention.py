"""Shared parts of attention lowerings: named arguments, masks outside a decoder, decomposed attention.

B batch, H heads, G KV heads, S sequence, K keys, D head width, V width of values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from attrs import frozen

from ditto.errors import UnsupportedFeature
from ditto.lowering.lower import Lowering, Operand
from ditto.lowering.registry import LoweringFunction
from ditto.network.graph import Value
from ditto.network.layers import Activation, Concatenation, ElementWise, MatrixMultiply, Select, Softmax
from ditto.ops.attention import AttentionArguments

# Replaces the scores of keys that a query does not attend to. Finite, so that no row becomes NaN.
MASKED_SCORE = -1e30


def by_name(function: Callable[[Lowering, AttentionArguments[Operand]], Value]) -> LoweringFunction:
    """Turn a function of named attention arguments into a lowering of `ditto.attention`."""

    def lowering(net: Lowering, *args: Any, **kwargs: Any) -> Value:
        return function(net, AttentionArguments(*args, **kwargs))

    return lowering


def attention_mask(net: Lowering, given: AttentionArguments[Operand]) -> Value | None:
    """The mask of attention outside a decoder: bool [B, 1, S, K], or None.

    A floating mask is not one, but `score_bias`.

    Raises:
        UnsupportedFeature: sinks, slopes, spans, a window, or causal attention with a mask, a bias or a softcap.
    """
    if given.sinks is not None:
        raise UnsupportedFeature("attention outside a decoder has learned sinks")
    if given.slopes is not None:
        raise UnsupportedFeature("attention scores outside a decoder get a bias by distance (ALiBi)")
    if given.spans is not None:
        raise UnsupportedFeature("tokens outside a decoder form spans")
    if given.window or (given.causal and (given.softcap or given.mask is not None)):
        raise UnsupportedFeature("windowed or soft-capped causal attention outside a decoder")
    if given.mask is None or net.value(given.mask).spec.dtype != torch.bool:
        return None
    return _whole_mask(net, net.value(given.mask), net.value(given.query), net.value(given.key))


def score_bias(net: Lowering, given: AttentionArguments[Operand]) -> Value | None:
    """What attention outside a decoder adds to its scores: floating [B or 1, H or 1, S or 1, K or 1], or None."""
    if given.mask is None or net.value(given.mask).spec.dtype == torch.bool:
        return None
    value = net.value(given.mask)
    return net.reshape(value, (1,) * (4 - value.rank) + value.spec.shape)


def _whole_mask(net: Lowering, value: Value, query: Value, key: Value) -> Value:
    wanted = (query.spec.shape[0], 1, query.spec.shape[2], key.spec.shape[2])
    value = net.reshape(value, (1,) * (4 - value.rank) + value.spec.shape)
    if any(have not in (1, want) for have, want in zip(value.spec.shape, wanted, strict=True)):
        raise UnsupportedFeature("an attention mask that differs between heads")
    strides = tuple(0 if have == 1 and want != 1 else 1 for have, want in zip(value.spec.shape, wanted, strict=True))
    return value if value.spec.shape == wanted else net.box(value, (0, 0, 0, 0), wanted, strides)


@frozen
class ScoreTerms:
    """What attention adds to its scores.

    Args:
        sinks: [H], or None.
        slopes, distances: float32 [H], and key minus query position, float32 [B or 1, 1, S, K]; or None.
        bias: floating [B or 1, H or 1, S or 1, K or 1], or None.
    """

    sinks: Value | None = None
    slopes: Value | None = None
    distances: Value | None = None
    bias: Value | None = None


NO_TERMS = ScoreTerms()


def decomposed_attention(
    net: Lowering,
    query: Value,
    key: Value,
    value: Value,
    scale: float,
    softcap: float,
    mask: Value | None,
    terms: ScoreTerms = NO_TERMS,
) -> Value:
    """Attention decomposed into elementary layers, with softmax in float32.

    Query [B, H, S, D], key [B, G, K, D], value [B, G, K, V], mask bool [B, 1, S, K]. Query heads that share a KV head
    are a third axis, so that keys and values are not repeated.
    """
    batch, heads, length, width = query.spec.shape
    _, kv_heads, keys, _ = key.spec.shape
    assert isinstance(heads, int) and isinstance(kv_heads, int)
    group, columns = heads // kv_heads, value.spec.shape[3]
    grouped = net.reshape(query, (batch, kv_heads, group, length, width))
    key_rows = net.reshape(key, (batch, kv_heads, 1, keys, width))
    value_rows = net.reshape(value, (batch, kv_heads, 1, keys, columns))
    scores = net.cast(net.add(MatrixMultiply(transpose_y=True), grouped, key_rows), torch.float32)
    scores = net.add(ElementWise("PROD"), scores, net.operand(scale / softcap if softcap else scale, torch.float32, 5))
    if softcap:
        bounded = net.add(Activation("TANH"), scores)
        scores = net.add(ElementWise("PROD"), bounded, net.operand(softcap, torch.float32, 5))
    if terms.slopes is not None and terms.distances is not None:
        first, _, *axes = terms.distances.spec.shape
        scores = sloped(net, scores, terms.slopes, net.reshape(terms.distances, (first, 1, 1, *axes)))
    if terms.bias is not None:
        first, of_heads, *axes = terms.bias.spec.shape
        by_group = (1, 1) if of_heads == 1 else (kv_heads, group)
        bias = net.reshape(net.cast(terms.bias, torch.float32), (first, *by_group, *axes))
        scores = net.add(ElementWise("SUM"), scores, bias)
    if mask is not None:
        seen = net.reshape(mask, (*mask.spec.shape[:1], 1, 1, *mask.spec.shape[2:]))
        scores = net.add(Select(), seen, scores, net.operand(MASKED_SCORE, torch.float32, 5))
    weights = net.cast(softmax_of(net, scores, 4, terms.sinks), query.spec.dtype)
    product = net.add(MatrixMultiply(), weights, value_rows)
    return net.reshape(product, (batch, heads, length, columns))


def sloped(net: Lowering, scores: Value, slopes: Value, distances: Value) -> Value:
    """Scores [B, G, group, ...] plus slope * distance of each head; `distances` broadcasts against the scores."""
    _, kv_heads, group, *rest = scores.spec.shape
    by_head = net.reshape(slopes, (1, kv_heads, group, *(1,) * len(rest)))
    return net.add(ElementWise("SUM"), scores, net.add(ElementWise("PROD"), by_head, distances))


def softmax_of(net: Lowering, scores: Value, axis: int, sinks: Value | None) -> Value:
    """Softmax of scores [B, G, group, ...] in float32; sinks are one more score of each head, without a value."""
    if sinks is None:
        return net.add(Softmax(axis), scores)
    shape = scores.spec.shape
    column = (*shape[:axis], 1, *shape[axis + 1 :])
    sink = net.reshape(net.cast(sinks, torch.float32), (1, *shape[1:3], *(1,) * (len(shape) - 3)))
    strides = tuple(1 if have == want else 0 for have, want in zip(sink.spec.shape, column, strict=True))
    sink = net.box(sink, (0,) * len(shape), column, strides)
    weights = net.add(Softmax(axis), net.add(Concatenation(axis), scores, sink))
    return net.slice(weights, axis, 0, shape[axis])
