"""Lowerings of the plugin-free target: attention, KV cache, rope, prompt table, last tokens.

B batch, S sequence, C capacity of the KV cache, G KV heads, D head width, V width of values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from attrs import define, evolve, field, frozen
from torch._ops import OpOverload

from ditto.errors import UnsupportedFeature
from ditto.lowering import Lowering, Operand, Table, table
from ditto.lowering.attention import ScoreTerms, attention_mask, by_name, decomposed_attention, score_bias
from ditto.lowering.registry import LoweringFunction
from ditto.network import symbol
from ditto.network.dims import add
from ditto.network.graph import Value
from ditto.network.layers import (
    ElementWise,
    Fill,
    Gather,
    KVCacheUpdate,
    RotaryEmbedding,
    Select,
    Unary,
)
from ditto.network.spec import Spec
from ditto.ops.attention import AttentionArguments
from ditto.targets.tensorrt.attention import fused_attention
from ditto.targets.tensorrt.states import BATCH, States

_ops = torch.ops.ditto
SEQUENCE = symbol("sequence")


@by_name
def attention(net: Lowering, given: AttentionArguments[Operand]) -> Value:
    """Attention without a KV cache, as in a vision tower."""
    seen, bias = attention_mask(net, given), score_bias(net, given)
    q, k, v = (net.value(operand) for operand in (given.query, given.key, given.value))
    if given.softcap or bias is not None:
        return decomposed_attention(net, q, k, v, given.scale, given.softcap, seen, ScoreTerms(bias=bias))
    return fused_attention(net, q, k, v, given.scale, given.causal, seen)


def refuse_all_but_causal(mask: Operand | None, causal: bool) -> None:
    """Check that a decoder's attention works with a KV cache.

    Raises:
        UnsupportedFeature: the attention is not causal.
    """
    if not causal or mask is not None:
        raise UnsupportedFeature(
            "the decoder's attention is not causal",
            remedy="a KV cache needs every token to see only those before it",
        )


@frozen
class MaskTerms:
    """What the mask of an attention depends on, beside the positions of tokens.

    Args:
        window: as in `ditto.attention`.
        spans: int32 [B, S], as in `ditto.attention`, or None.
        whole_spans: as in `ditto.attention`.
    """

    window: int
    spans: Value | None
    whole_spans: bool

    @staticmethod
    def of(given: AttentionArguments[Value]) -> MaskTerms:
        """The terms of an attention."""
        return MaskTerms(given.window, given.spans, given.whole_spans)


def sees(net: Lowering, tokens: Value, others: Value, window: int, together: Value | None = None) -> Value:
    """Causal mask from int32 positions: whether tokens attend to others.

    A token attends to itself and those before it, and to those that it is `together` with; with a window, only to its
    last `window` tokens and later ones.

    Args:
        together: bool, broadcastable to the mask, or None.
    """
    seen = net.add(Unary("NOT"), net.add(ElementWise("GREATER"), others, tokens))
    if together is not None:
        seen = net.add(ElementWise("OR"), seen, together)
    if not window:
        return seen
    first = net.add(ElementWise("SUB"), tokens, net.operand(window, torch.int32, tokens.rank))
    return net.add(ElementWise("AND"), seen, net.add(ElementWise("GREATER"), others, first))


def needs_decomposition(given: AttentionArguments[Any]) -> bool:
    """Whether attention does something that TensorRT's attention layer does not."""
    return bool(given.softcap) or given.sinks is not None or given.slopes is not None


@define
class Decoder:
    """Lowerings of a decoder with a KV cache per layer, but for layers that share keys and values.

    The cache is `past_key_i` [B, G, C, D] and `past_value_i` [B, G, C, V], updated in place as `present_key_i` and
    `present_value_i`. `write_indices` int32 [B] is the number of tokens of each row in the cache: new ones are written
    after them, and query s of a row attends to slots 0 to write_indices + s.

    Args:
        capacity: slots of the cache per row; static, as TensorRT's KV cache layer requires.
    """

    net: Lowering
    capacity: int
    _masks: dict[MaskTerms, Value] = field(factory=dict)
    _together: Value | None = None
    _key_distances: Value | None = None
    _write_indices: Value | None = None
    _states: States | None = None
    _written_from: dict[tuple[str, str], tuple[Value, Value]] = field(factory=dict)

    def table(self) -> Table:
        """Shared lowerings and those of the decoder."""
        mine: Mapping[OpOverload, LoweringFunction] = {
            _ops.attention.default: by_name(self.attention),
            _ops.causal_conv.default: lambda net, *args: self.states.causal_conv(net, *args),
            _ops.linear_attention.default: lambda net, *args: self.states.linear_attention(net, *args),
            _ops.rope.default: rope,
            _ops.prompt_rows.default: prompt_rows,
            _ops.last_tokens.default: last_tokens,
        }
        return {**table(), **mine}

    @property
    def write_indices(self) -> Value:
        if self._write_indices is None:
            self._write_indices = self.net.input("write_indices", Spec((BATCH,), torch.int32))
        return self._write_indices

    @property
    def states(self) -> States:
        """The states other than keys and values."""
        if self._states is None:
            self._states = self._new_states()
        return self._states

    def _new_states(self) -> States:
        last = self.net.network.value("last_token_ids")
        return States(self.net, self.write_indices, last, continues=True, begins=True)

    def attention(self, net: Lowering, given: AttentionArguments[Operand]) -> Value:
        """Attention of a decoder: checks that all variants share, then `_attend`."""
        refuse_all_but_causal(given.mask, given.causal)
        q, k, v = (net.value(operand) for operand in (given.query, given.key, given.value))
        more = {"sinks": given.sinks, "slopes": given.slopes, "spans": given.spans}
        known = {name: None if each is None else net.value(each) for name, each in more.items()}
        values: AttentionArguments[Any] = evolve(given, query=q, key=k, value=v, **known)
        return self._attend(net, values)

    def _attend(self, net: Lowering, given: AttentionArguments[Value]) -> Value:
        """Attention of new tokens over the cache and themselves."""
        keys, values = self._caches(net, given)
        seen = self._mask(net, MaskTerms.of(given))
        if needs_decomposition(given) or given.key.spec.shape != given.value.spec.shape:
            terms = self._terms(net, given)
            return decomposed_attention(net, given.query, keys, values, given.scale, given.softcap, seen, terms)
        return fused_attention(net, given.query, keys, values, given.scale, False, seen)

    def _terms(self, net: Lowering, given: AttentionArguments[Value]) -> ScoreTerms:
        return ScoreTerms(given.sinks, given.slopes, None if given.slopes is None else self._distances(net))

    def _caches(self, net: Lowering, given: AttentionArguments[Value]) -> tuple[Value, Value]:
        """Key and value caches, updated with the new tokens.

        Layers that attend to the keys and values of an earlier layer share its caches.
        """
        source = given.key.name, given.value.name
        if source not in self._written_from:
            self._written_from[source] = self._written(net, given.layer, given.key, given.value)
        return self._written_from[source]

    def _written(self, net: Lowering, layer: int, key: Value, value: Value) -> tuple[Value, Value]:
        """Caches of a layer, updated with the keys and values of the new tokens."""
        return self._cached(net, "key", layer, key), self._cached(net, "value", layer, value)

    def _cached(self, net: Lowering, kind: str, layer: int, new: Value) -> Value:
        past = f"past_{kind}_{layer}"
        if past in net.network.inputs:
            raise UnsupportedFeature(f"two attentions say that they are layer {layer}")
        heads, width = new.spec.shape[1], new.spec.shape[3]
        cache = net.input(past, Spec((BATCH, heads, self.capacity, width), new.spec.dtype))
        updated = net.add(KVCacheUpdate(), cache, new, self.write_indices)
        net.network.output(f"present_{kind}_{layer}", updated, shares=past)
        return updated

    def _mask(self, net: Lowering, terms: MaskTerms) -> Value:
        """Mask of slots for each query: bool [B, 1, S, C]; shared by all layers with the same terms."""
        if terms not in self._masks:
            positions = self._positions(net)
            together = None if terms.spans is None else self._in_one_span(net, terms.spans)
            if together is None or not terms.whole_spans:
                self._masks[terms] = sees(net, *positions, terms.window, together)
            else:
                self._masks[terms] = net.add(ElementWise("OR"), sees(net, *positions, terms.window), together)
        return self._masks[terms]

    def _in_one_span(self, net: Lowering, spans: Value) -> Value:
        """Whether the token in a slot is of the query's span: bool [B, 1, S, C]; shared by all layers."""
        if self._together is None:
            self._together = of_one_span(net, spans, self._spans_of_keys(net, spans))
        return self._together

    def _spans_of_keys(self, net: Lowering, spans: Value) -> Value:
        """Span ids of the tokens in all slots, int32 [B, C]; 0 where an earlier call wrote them."""
        slots = net.reshape(net.literal(torch.arange(self.capacity, dtype=torch.int32)), (1, self.capacity))
        indices = net.add(ElementWise("SUB"), slots, net.reshape(self.write_indices, (BATCH, 1)))
        zero, last = (net.operand(each, torch.int32, 2) for each in (0, add(SEQUENCE, -1)))
        within = net.add(ElementWise("MIN"), net.add(ElementWise("MAX"), indices, zero), last)
        found = net.add(Gather(axis=1, batch_axes=1), spans, within)
        return net.add(Select(), net.add(ElementWise("EQUAL"), within, indices), found, zero)

    def _positions(self, net: Lowering) -> tuple[Value, Value]:
        """Positions of queries and keys, int32, that broadcast to the mask's shape: their slots."""
        count = net.add(Fill(SEQUENCE, 0, 1, torch.int32), net.sizes((SEQUENCE,)))
        slots = net.add(
            ElementWise("SUM"), net.reshape(self.write_indices, (BATCH, 1)), net.reshape(count, (1, SEQUENCE))
        )
        slots = net.reshape(slots, (BATCH, 1, SEQUENCE, 1))
        keys = net.literal(torch.arange(self.capacity, dtype=torch.int32))
        return slots, net.reshape(keys, (1, 1, 1, self.capacity))

    def _distances(self, net: Lowering) -> Value:
        """Key minus query position, float32, that broadcasts to the mask's shape; shared by all layers."""
        if self._key_distances is None:
            queries, keys = self._positions(net)
            self._key_distances = net.cast(net.add(ElementWise("SUB"), keys, queries), torch.float32)
        return self._key_distances


def of_one_span(net: Lowering, spans: Value, others: Value) -> Value:
    """Whether tokens are of one span, from span ids int32 [B, S] and [B, K]: bool [B, 1, S, K]."""
    ids = net.reshape(spans, (BATCH, 1, SEQUENCE, 1))
    same = net.add(ElementWise("EQUAL"), ids, net.reshape(others, (BATCH, 1, 1, others.spec.shape[1])))
    inside = net.add(ElementWise("GREATER"), ids, net.operand(0, torch.int32, 4))
    return net.add(ElementWise("AND"), same, inside)


def rope(net: Lowering, x: Operand, cos: Any, sin: Any, positions: Operand, interleaved: bool) -> Value:
    """Rotary embedding of whole heads, from tables; all layers share the table lookup."""
    value = net.value(x)
    layer = RotaryEmbedding(interleaved, int(value.spec.shape[3]))  # type: ignore[arg-type]
    ids = net.value(positions)
    if ids.spec.shape[0] != value.spec.shape[0]:
        ids = net.box(ids, (0, 0), (value.spec.shape[0], *ids.spec.shape[1:]), (0, 1))
    return net.add(layer, value, *(net.add(Gather(axis=0), net.value(table), ids) for table in (cos, sin)))


def prompt_rows(net: Lowering, ids: Operand, table: Operand, vocab_size: int) -> Value:
    """Rows of the prompt table: row id - vocab_size for virtual ids, row 0 for others."""
    tokens = net.value(ids)
    dtype = tokens.spec.dtype
    virtual = net.add(ElementWise("GREATER"), tokens, net.operand(vocab_size - 1, dtype, 2))
    shifted = net.add(ElementWise("SUB"), tokens, net.operand(vocab_size, dtype, 2))
    rows = net.add(Select(), virtual, shifted, net.operand(0, dtype, 2))
    return net.add(Gather(axis=0), net.value(table), rows)


def last_tokens(net: Lowering, x: Operand, indices: Operand) -> Value:
    """Select one position of each row: [B, 1, width]."""
    value, positions = net.value(x), net.value(indices)
    return net.add(Gather(axis=1, batch_axes=1), value, net.reshape(positions, (*positions.spec.shape, 1)))
