"""Prefill and decode as separate networks over one KV cache, each in its fastest form.

B batch, S sequence, C capacity of the KV cache, L valid KV length, H heads, G KV heads, D head width, V width of
values.

Prefill writes into empty rows, so its tokens attend only to each other: fused causal attention, no cache read, no mask.
Decode has one query per row. TensorRT's attention layer would read the whole cache whatever its valid length (and
TensorRT-RTX copies it first if the batch size is dynamic). It has two other forms, over the valid slots alone:

- Sums: multiplications and sums along the last axis read the slots once, in place. Keys are stored as [slot, D] and
  values as [V, slot], so that both sums run over contiguous memory. The fastest for a few rows.
- Products: matrix multiplications of the query heads that share a KV head; keys and values stored as [slot, D].
  TensorRT copies the slots first, yet this is faster from 16 rows on where at least four query heads share a KV head.

See "Decode attention by KV heads and rows" in benchmarks/NOTES.md.
"""

from __future__ import annotations

import torch
from attrs import define, evolve
from typing_extensions import override

from ditto.engine.spec import DecodeAttention
from ditto.lowering import Lowering, Operand, Table
from ditto.lowering.attention import MASKED_SCORE, NO_TERMS, ScoreTerms, decomposed_attention, sloped, softmax_of
from ditto.network import symbol
from ditto.network.dims import multiply
from ditto.network.graph import Value
from ditto.network.layers import Activation, ElementWise, Fill, MatrixMultiply, Reduce, Select
from ditto.network.spec import Spec
from ditto.ops.attention import AttentionArguments
from ditto.targets.tensorrt.attention import fused_attention
from ditto.targets.tensorrt.lowering import SEQUENCE, Decoder, MaskTerms, needs_decomposition
from ditto.targets.tensorrt.states import BATCH, States

KV_LENGTH = "kv_length"
"""Name of the dimension of KV cache slots that decode reads."""


@define
class SeparateDecoder(Decoder):
    """KV cache layout shared by both networks.

    `past_key_i` is [B, G, C, D], and `past_value_i` [B, G, C, V] for products. For sums it is [B, G V, C, 1], which in
    memory is [B, G, V, C].

    Args:
        decode_attention: form of attention in decode.
    """

    decode_attention: DecodeAttention = "sums"

    @override
    def _written(self, net: Lowering, layer: int, key: Value, value: Value) -> tuple[Value, Value]:
        if self.decode_attention == "products":
            return self._cached(net, "key", layer, key), self._cached(net, "value", layer, value)
        _, heads, count, width = value.spec.shape
        columns = net.reshape(net.permute(value, (0, 1, 3, 2)), (BATCH, multiply(heads, width), count, 1))
        return self._cached(net, "key", layer, key), self._cached(net, "value", layer, columns)


@define
class Prefill(SeparateDecoder):
    """Prefill: attention of prompts whose KV cache is empty; the cache is written, not read."""

    @override
    def _attend(self, net: Lowering, given: AttentionArguments[Value]) -> Value:
        """Attention of new tokens over each other; also writes their keys and values to the cache."""
        self._caches(net, given)
        qkv = given.query, given.key, given.value
        is_wider = int(given.value.spec.shape[3]) > int(given.key.spec.shape[3])  # type: ignore[arg-type]
        mask = MaskTerms.of(given)
        if needs_decomposition(given) or is_wider:
            seen, terms = self._mask(net, mask), self._terms(net, given)
            return decomposed_attention(net, *qkv, given.scale, given.softcap, seen, terms)
        if mask.window or mask.spans is not None:
            return fused_attention(net, *qkv, given.scale, False, self._mask(net, mask))
        return fused_attention(net, *qkv, given.scale, True, None)

    @override
    def _new_states(self) -> States:
        last = self.net.network.value("last_token_ids")
        return States(self.net, self.write_indices, last, continues=False, begins=True)

    @override
    def _mask(self, net: Lowering, terms: MaskTerms) -> Value:
        """Mask between new tokens: bool [B, 1, S, S]; shared by all layers with the same terms."""
        seen = super()._mask(net, terms)
        if seen.spec.shape[0] != BATCH:
            seen = net.box(seen, (0, 0, 0, 0), (BATCH, 1, SEQUENCE, SEQUENCE), (0, 1, 1, 1))
            self._masks[terms] = seen
        return seen

    @override
    def _spans_of_keys(self, net: Lowering, spans: Value) -> Value:
        return spans

    @override
    def _positions(self, net: Lowering) -> tuple[Value, Value]:
        count = net.add(Fill(SEQUENCE, 0, 1, torch.int32), net.sizes((SEQUENCE,)))
        return net.reshape(count, (1, 1, SEQUENCE, 1)), net.reshape(count, (1, 1, 1, SEQUENCE))


@define
class Decode(SeparateDecoder):
    """Decode: attention of one token per row over the valid slots of the KV cache; masks are bool [B, 1, 1, L, 1].

    `cache_slots` int32 [L] holds 0 to L - 1; L is greater than every row's index in `write_indices`.
    """

    _cache_slots: Value | None = None

    @property
    def cache_slots(self) -> Value:
        if self._cache_slots is None:
            self._cache_slots = self.net.input("cache_slots", Spec((symbol(KV_LENGTH),), torch.int32))
        return self._cache_slots

    @override
    def _attend(self, net: Lowering, given: AttentionArguments[Value]) -> Value:
        """Attention of one token per row, after its key and value are written to the cache."""
        seen, caches = self._mask(net, MaskTerms.of(given)), self._caches(net, given)
        form = attention_in_sums if self.decode_attention == "sums" else attention_in_products
        return form(net, given.query, *caches, seen, given.scale, given.softcap, self._terms(net, given))

    @override
    def _new_states(self) -> States:
        return States(self.net, self.write_indices, None, continues=True, begins=False)

    @override
    def attention(self, net: Lowering, given: AttentionArguments[Operand]) -> Value:
        return super().attention(net, evolve(given, spans=None))  # a new token is text

    @override
    def _positions(self, net: Lowering) -> tuple[Value, Value]:
        slots = net.reshape(self.cache_slots, (1, 1, 1, symbol(KV_LENGTH), 1))
        return net.reshape(self.write_indices, (BATCH, 1, 1, 1, 1)), slots

    @override
    def table(self) -> Table:
        """The decoder's lowerings; `last_tokens` is the identity, as each row has one token."""
        return {**super().table(), torch.ops.ditto.last_tokens.default: _identity}


def attention_in_sums(
    net: Lowering,
    query: Value,
    keys: Value,
    values: Value,
    seen: Value,
    scale: float,
    softcap: float,
    terms: ScoreTerms = NO_TERMS,
) -> Value:
    """Attention of one token per row over the valid slots of a KV cache, in float32.

    Args:
        query: [B, H, 1, D].
        keys, values: [B, G, C, D] and [B, G V, C, 1].
        seen: bool [B, 1, 1, L, 1].
        terms: what is added to the scores; distances are [B, 1, 1, L, 1].
    Returns:
        [B, H, 1, V].
    """
    (_, heads, _, width), (_, kv_heads, capacity, _) = query.spec.shape, keys.spec.shape
    assert isinstance(heads, int) and isinstance(kv_heads, int)
    group, kv_length = heads // kv_heads, symbol(KV_LENGTH)
    columns = int(values.spec.shape[1]) // kv_heads  # type: ignore[arg-type]
    keys = net.box(keys, (0, 0, 0, 0), (BATCH, kv_heads, kv_length, width), (1, 1, 1, 1))
    values = net.reshape(values, (BATCH, kv_heads, columns, capacity))
    values = net.box(values, (0, 0, 0, 0), (BATCH, kv_heads, columns, kv_length), (1, 1, 1, 1))
    rows = net.reshape(query, (BATCH, kv_heads, group, 1, width))
    scores = _dot(net, rows, net.reshape(keys, (BATCH, kv_heads, 1, kv_length, width)))
    scores = net.add(ElementWise("PROD"), scores, _number(net, scale / softcap if softcap else scale))
    if softcap:
        scores = net.add(ElementWise("PROD"), net.add(Activation("TANH"), scores), _number(net, softcap))
    if terms.slopes is not None and terms.distances is not None:
        scores = sloped(net, scores, terms.slopes, terms.distances)
    scores = net.add(Select(), seen, scores, _number(net, MASKED_SCORE))
    weights = net.reshape(softmax_of(net, scores, 3, terms.sinks), (BATCH, kv_heads, group, 1, kv_length))
    output = _dot(net, weights, net.reshape(values, (BATCH, kv_heads, 1, columns, kv_length)))
    return net.reshape(net.cast(output, query.spec.dtype), (*query.spec.shape[:3], columns))


def attention_in_products(
    net: Lowering,
    query: Value,
    keys: Value,
    values: Value,
    seen: Value,
    scale: float,
    softcap: float,
    terms: ScoreTerms = NO_TERMS,
) -> Value:
    """Attention of one token per row over the valid slots of a KV cache, with softmax in float32.

    Args:
        query: [B, H, 1, D].
        keys, values: [B, G, C, D] and [B, G, C, V].
        seen: bool [B, 1, 1, L, 1].
        terms: what is added to the scores; distances are [B, 1, 1, L, 1].
    Returns:
        [B, H, 1, V].
    """
    (_, heads, _, width), kv_heads = query.spec.shape, keys.spec.shape[1]
    assert isinstance(heads, int) and isinstance(kv_heads, int)
    kv_length = symbol(KV_LENGTH)
    keys, values = (
        net.box(cache, (0, 0, 0, 0), (BATCH, kv_heads, kv_length, cache.spec.shape[3]), (1, 1, 1, 1))
        for cache in (keys, values)
    )
    rows = net.reshape(query, (BATCH, kv_heads, heads // kv_heads, width))
    if scale != 1.0:
        rows = net.add(ElementWise("PROD"), rows, net.operand(scale, query.spec.dtype, 4))
    scores = net.cast(net.add(MatrixMultiply(transpose_y=True), rows, keys), torch.float32)
    if softcap:
        bounded = net.add(Activation("TANH"), net.add(ElementWise("PROD"), scores, _number(net, 1 / softcap, 4)))
        scores = net.add(ElementWise("PROD"), bounded, _number(net, softcap, 4))
    if terms.slopes is not None and terms.distances is not None:
        scores = sloped(net, scores, terms.slopes, net.reshape(terms.distances, (BATCH, 1, 1, kv_length)))
    mask = net.reshape(seen, (BATCH, 1, 1, kv_length))
    scores = net.add(Select(), mask, scores, _number(net, MASKED_SCORE, 4))
    weights = net.cast(softmax_of(net, scores, 3, terms.sinks), query.spec.dtype)
    product = net.add(MatrixMultiply(), weights, values)
    return net.reshape(product, (*query.spec.shape[:3], values.spec.shape[3]))


def _identity(net: Lowering, x: Operand, indices: Operand) -> Value:
    del indices
    return net.value(x)


def _dot(net: Lowering, left: Value, right: Value) -> Value:
    """Dot products along the last axis, which is kept, in float32."""
    wide = (net.cast(part, torch.float32) for part in (left, right))
    return net.add(Reduce("SUM", (left.rank - 1,), keep=True), net.add(ElementWise("PROD"), *wide))


def _number(net: Lowering, number: float, rank: int = 5) -> Value:
    return net.operand(number, torch.float32, rank)
