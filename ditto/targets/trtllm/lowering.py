"""Lowerings that are specific to the TensorRT-LLM target.

These are plugins for attention and matrix multiplications, the prompt embedding table with tasks, and the last tokens
of packed sequences.

T packed tokens, H heads, G KV heads, D head width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from attrs import define, field
from torch._ops import OpOverload

from ditto.configs import Limits, TrtllmConfig
from ditto.errors import UnsupportedFeature
from ditto.lowering import Lowering, Operand, Table, table
from ditto.lowering.arithmetic import binary
from ditto.lowering.attention import ScoreTerms, attention_mask, by_name, decomposed_attention, score_bias
from ditto.lowering.linear import linear as plain_linear
from ditto.lowering.registry import LoweringFunction
from ditto.network import Spec, symbol
from ditto.network.graph import Value
from ditto.network.layers import Concatenation, ElementWise, Gather, Select
from ditto.network.weight import Weight, fold, resolve
from ditto.ops.attention import AttentionArguments
from ditto.ops.packed import PackedAttentionArguments
from ditto.targets.part import DecoderConfig
from ditto.targets.trtllm import inferred
from ditto.targets.trtllm.contract import TOKENS, attention_specs
from ditto.targets.trtllm.plugins import Gemm, GPTAttention, attention_inputs
from ditto.targets.trtllm.plugins.gpt_attention import LEARNED_ABSOLUTE, ROPE_GPT_NEOX, ROPE_GPTJ, ROPE_INPUTS
from ditto.targets.trtllm.rope import PluginRope, is_same, plugin_rope
from ditto.targets.trtllm.versions import version

aten = torch.ops.aten
_ditto = torch.ops.ditto


@define
class PackedDecoder:
    """Lowerings of a decoder over packed tokens and a paged KV cache.

    Args:
        net: the lowering in progress.
        decoder_config: configuration of the decoder.
        limits, options: limits and settings of the engine.
    """

    net: Lowering
    decoder_config: DecoderConfig
    limits: Limits
    options: TrtllmConfig
    _layers: set[int] = field(factory=set)
    _heads: set[tuple[int, int, int]] = field(factory=set)
    _inputs: dict[str, Value] = field(factory=dict)

    def table(self) -> Table:
        """The shared lowerings, with those of the decoder."""
        own: dict[OpOverload, LoweringFunction] = {
            _ditto.packed_attention.default: lambda net, *args, **kwargs: self.attention(
                net, PackedAttentionArguments(*args, **kwargs)
            ),
            _ditto.causal_conv.default: refuse_state,
            _ditto.linear_attention.default: refuse_state,
            _ditto.packed_last_tokens.default: last_tokens,
            _ditto.prompt_rows.default: self.prompt_rows,
            _ditto.rope.default: decomposed_rope,
        }
        if self.options.gemm_plugin:
            own[aten.linear.default] = linear
        return {**table(), **own}

    def attention(self, net: Lowering, given: PackedAttentionArguments[Operand]) -> Value:
        """Attention as a plugin.

        The plugin applies rope if its tables equal the model's; otherwise rope is computed before it.
        """
        value = net.value(given.qkv)
        if value.rank != 2:
            raise UnsupportedFeature(
                f"attention is given {value.spec}, not packed tokens",
                remedy="let the model keep its tokens in [batch, sequence, width] around attention",
            )
        width = int(value.spec.shape[1]) // (given.heads + 2 * given.kv_heads)  # type: ignore[arg-type]
        rope = self._plugin_rope(net, given.cos, given.sin)
        if given.cos is not None and given.sin is not None and rope is None:
            value = self._rotated(net, value, given, width)
        if given.layer in self._layers:
            raise UnsupportedFeature(f"two attentions say that they are layer {given.layer}")
        self._layers.add(given.layer)
        self._heads.add((given.heads, given.kv_heads, width))
        rotated = 2 * len(rope.inv_freq) if rope is not None else 0
        fused = str(value.spec.dtype).removeprefix("torch.") in inferred.FUSED_CONTEXT_DTYPES  # as in config.json
        plugin = GPTAttention(
            trtllm=self.options.version,
            dtype=value.spec.dtype,
            window=given.window,
            layer_idx=given.layer,
            num_heads=given.heads,
            num_kv_heads=given.kv_heads,
            head_size=width,
            q_scaling=1.0 / (given.scale * math.sqrt(width)),
            attn_logit_softcapping_scale=given.softcap,
            position_embedding_type=(ROPE_GPTJ if given.interleaved else ROPE_GPT_NEOX) if rope else LEARNED_ABSOLUTE,
            rotary_embedding_dim=rotated,
            rotary_embedding_base=rope.base if rope else 10000.0,
            rotary_embedding_scale_type=rope.scale_type if rope else 0,
            rotary_embedding_scale=rope.scale if rope else 1.0,
            rotary_embedding_max_positions=max(self.decoder_config.max_position_embeddings, self.limits.max_seq_len),
            tokens_per_block=self.options.tokens_per_block,
            max_context_length=self.limits.max_input_len,
            context_fmha_type=int(fused),
            use_paged_context_fmha=int(fused and self.options.use_paged_context_fmha),
        )
        inputs = dict(self._attention_inputs(net))
        if rope is not None:
            tables = (net.literal(rope.inv_freq), net.literal(rope.cos_sin))
            inputs.update(zip(ROPE_INPUTS, tables, strict=True))
        return net.add(plugin, value, *attention_inputs(plugin, inputs))

    def check_layers(self) -> None:
        """Check that each layer has a KV cache, and that all have the same size.

        The runtime allocates one per layer, of the size that config.json states.

        Raises:
            UnsupportedFeature: a layer has no attention with a KV cache, layers are not numbered from 0, or they differ
                in heads.
        """
        layers = self.decoder_config.num_hidden_layers
        if self._layers != set(range(layers)):
            raise UnsupportedFeature(
                f"attentions of layers {sorted(self._layers)} have a KV cache, and TensorRT-LLM makes one for each of "
                f"the model's {layers} layers",
                remedy="models whose layers do not all attend to the tokens before are for targets without plugins",
            )
        if len(self._heads) > 1:
            raise UnsupportedFeature(
                f"layers have (heads, KV heads, head width) {sorted(self._heads)}, and TensorRT-LLM's configuration "
                "has one size for all",
                remedy="models whose layers differ in attention heads are for targets without plugins",
            )

    def _attention_inputs(self, net: Lowering) -> Mapping[str, Value]:
        if not self._inputs:
            for name, spec in attention_specs(
                self.decoder_config.num_hidden_layers, version(self.options.version)
            ).items():
                self._inputs[name] = net.input(name, spec)
        return self._inputs

    def _plugin_rope(self, net: Lowering, cos: Operand | None, sin: Operand | None) -> PluginRope | None:
        base = self.decoder_config.extra.get("rotary_base")
        if not isinstance(cos, Weight) or not isinstance(sin, Weight) or base is None:
            return None
        tables = [resolve(operand, _NoTensors(), net.network.literals) for operand in (cos, sin)]
        width = 2 * tables[0].shape[1]
        positions = max(self.decoder_config.max_position_embeddings, tables[0].shape[0])
        # Scaling may affect long sequences only, which the tables do not cover; then try the tables without scaling.
        for scaling in (self.decoder_config.extra.get("rotary_scaling"), None):
            rope = plugin_rope(float(base), scaling, width, positions)
            if rope is not None and is_same(rope, *tables):
                return rope
        return None

    def _rotated(self, net: Lowering, qkv: Value, given: PackedAttentionArguments[Any], width: int) -> Value:
        """Rotate queries and keys in qkv [T, (H + 2 G) D] with layers of the network."""
        assert given.cos is not None and given.sin is not None
        positions = net.network.value("position_ids")
        tokens = qkv.spec.shape[0]
        rotated = given.heads + given.kv_heads
        rows = net.reshape(net.slice(qkv, 1, 0, rotated * width), (tokens, rotated, width))
        c, s = (net.add(Gather(axis=0), net.value(part), positions) for part in (given.cos, given.sin))
        columns = 2 * int(c.spec.shape[1])  # type: ignore[arg-type]
        head = net.slice(rows, 2, 0, columns) if columns < width else rows
        angles = [net.reshape(part, (tokens, 1, columns // 2)) for part in (c, s)]
        result = _rotate(net, head, angles[0], angles[1], given.interleaved)
        if columns < width:
            result = net.add(Concatenation(axis=2), result, net.slice(rows, 2, columns, width - columns))
        merged = net.reshape(result, (tokens, rotated * width))
        return net.add(Concatenation(axis=1), merged, net.slice(qkv, 1, rotated * width, given.kv_heads * width))

    def prompt_rows(self, net: Lowering, ids: Operand, table: Operand, vocab_size: int) -> Value:
        """Rows of the prompt embedding table for virtual token ids (contract 3.12).

        The row of an id is tasks * prompt_vocab_size + id - vocab_size.
        """
        tokens = net.value(ids)
        tasks = net.input("tasks", Spec((symbol(TOKENS),), torch.int32))
        rows_per_task = net.input("prompt_vocab_size", Spec((1,), torch.int32))
        virtual = binary(net, "GREATER", tokens, vocab_size - 1, torch.int32)
        shifted = binary(net, "SUB", tokens, vocab_size, torch.int32)
        own = net.add(Select(), virtual, shifted, net.operand(0, torch.int32, tokens.rank))
        first = net.add(ElementWise("PROD"), tasks, rows_per_task)
        return net.add(Gather(axis=0), net.value(table), net.add(ElementWise("SUM"), own, first))


class _NoTensors:
    """A source without tensors: rope tables do not depend on weights."""

    def tensor(self, name: str) -> torch.Tensor:
        raise LookupError(name)

    def release(self) -> None:
        """Do nothing: there are no tensors."""


def linear(net: Lowering, x: Operand, weight: Operand, bias: Operand | None = None) -> Value:
    """A linear layer as a Gemm plugin, followed by a sum if it has a bias."""
    value = net.value(x)
    if value.rank != 2 or not isinstance(weight, Weight):
        return plain_linear(net, x, weight, bias)
    typed = weight if weight.dtype == value.spec.dtype else fold("cast", weight, value.spec.dtype)
    result = net.add(Gemm(dtype=value.spec.dtype), value, net.value(typed))
    return result if bias is None else binary(net, "SUM", result, bias, value.spec.dtype)


def refuse_state(net: Lowering, *operands: Any) -> Value:
    """Refuse an operator that keeps a state other than keys and values.

    Raises:
        UnsupportedFeature: always.
    """
    del net, operands
    raise UnsupportedFeature(
        "the decoder keeps the state of a convolution or a recurrence; engines for TensorRT-LLM keep keys and values",
        remedy="build with --target tensorrt or --target tensorrt-rtx",
    )


def last_tokens(net: Lowering, x: Operand, ends: Operand) -> Value:
    """The last token of each sequence: rows ends - 1 of packed tokens.

    Source: contract 6, index_select of last_token_ids - 1.
    """
    value, wanted = net.value(x), net.value(ends)
    rows = binary(net, "SUB", wanted, 1, wanted.spec.dtype)
    return net.add(Gather(axis=value.rank - 2), value, rows)


def decomposed_rope(net: Lowering, x: Operand, cos: Any, sin: Any, positions: Operand, interleaved: bool) -> Value:
    """Rotary embedding of [1, heads, T, D] without TensorRT's own layer.

    TensorRT 10.9 lacks that layer.
    """
    value, ids = net.value(x), net.value(positions)
    rows = (net.add(Gather(axis=0), net.value(table), ids) for table in (cos, sin))
    c, s = (net.reshape(part, (1, 1, *part.spec.shape[-2:])) for part in rows)
    return _rotate(net, value, c, s, interleaved)


def _rotate(net: Lowering, x: Value, c: Value, s: Value, interleaved: bool) -> Value:
    """Rotate pairs (a, b) of x's last axis to (a c - b s, b c + a s).

    c and s broadcast against a.
    """
    axis, half = x.rank - 1, int(x.spec.shape[-1]) // 2  # type: ignore[arg-type]
    if interleaved:
        a, b = (net.slice(x, axis, start, half, step=2) for start in (0, 1))
    else:
        a, b = (net.slice(x, axis, start, half) for start in (0, half))

    def product(left: Value, right: Value) -> Value:
        return net.add(ElementWise("PROD"), left, right)

    first = net.add(ElementWise("SUB"), product(a, c), product(b, s))
    second = net.add(ElementWise("SUM"), product(b, c), product(a, s))
    if not interleaved:
        return net.add(Concatenation(axis), first, second)
    pairs = [net.reshape(part, (*part.spec.shape, 1)) for part in (first, second)]
    return net.reshape(net.add(Concatenation(axis + 1), *pairs), x.spec.shape)


@by_name
def vision_attention(net: Lowering, given: AttentionArguments[Operand]) -> Value:
    """Attention of a vision tower, decomposed into layers of TensorRT 10.9."""
    if given.causal:
        raise UnsupportedFeature("causal attention in a vision tower")
    mask, terms = attention_mask(net, given), ScoreTerms(bias=score_bias(net, given))
    q, k, v = (net.value(operand) for operand in (given.query, given.key, given.value))
    return decomposed_attention(net, q, k, v, given.scale, given.softcap, mask, terms)
