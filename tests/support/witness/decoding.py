"""Meaning of layers made for decoders.

B batch, S query positions, K key positions, H heads, G KV heads, D head width.
"""

from __future__ import annotations

import tensorrt_rtx as trt
import torch
from torch import Tensor

from tests.support.witness.reading import Reading, wide


def attention_input(layer: Reading) -> Tensor:
    """IAttentionInputLayer: opens what IAttentionOutputLayer closes. Its output has the query's shape and dtype."""
    inside = layer.get("attention")
    for index in range(layer.thing.num_inputs):
        layer.optional(index)
    mine = [layer.thing.get_input(index).name for index in range(3)]
    if mine != [inside.get_input(index).name for index in range(3)]:
        layer.fail(f"takes {mine}, its attention does not")
    return layer.input(0)


def attention_output(layer: Reading) -> Tensor:
    """IAttentionOutputLayer: what its IAttention computes."""
    inside = layer.get("attention")
    layer.input(0)
    reading = Reading(inside, range(3), layer.values)
    result = attention(reading)
    reading.finish()
    return result


def attention(layer: Reading) -> Tensor:
    """IAttention, padded form: softmax(query key^T) value. The query comes scaled. H / G heads in a row share a KV
    head. A bool mask [B or 1, H or 1, S, K] is true where a query sees a key; another one is added to the scores."""
    query, key, value = (layer.input(index) for index in range(3))
    layer.alike(query, key, value, rank=True)
    layer.expect("norm_op", trt.AttentionNormalizationOp.SOFTMAX)
    layer.expect("query_form", trt.AttentionIOForm.PADDED_BHND)
    layer.expect("key_value_form", trt.AttentionIOForm.PADDED_BHND)
    for name in ("query_lengths", "key_value_lengths", "normalization_quantize_scale"):
        layer.expect(name, None)
    layer.expect("num_ranks", 1)
    layer.without_meaning("decomposable")  # only how it is computed
    layer.without_meaning("normalization_quantize_to_type")  # of a scale that is not set; reading it logs an error
    batch, heads, length, _ = query.shape
    _, kv_heads, keys, _ = key.shape
    if heads % kv_heads or key.shape != value.shape or (batch, query.shape[3]) != (key.shape[0], key.shape[3]):
        layer.fail(f"query {list(query.shape)}, key {list(key.shape)}, value {list(value.shape)}")
    key, value = (wide(x).repeat_interleave(heads // kv_heads, dim=1) for x in (key, value))
    scores = wide(query) @ key.transpose(2, 3)

    kind, handle = layer.get("causal_kind"), layer.get("mask")
    if layer.get("causal") != (kind != trt.CausalMaskKind.NONE):
        layer.fail(f"causal_kind {kind} contradicts causal")
    if kind != trt.CausalMaskKind.NONE:
        if handle is not None:
            layer.fail("is causal and has a mask")
        behind = 0 if kind == trt.CausalMaskKind.UPPER_LEFT else keys - length
        seen = torch.ones(length, keys, dtype=torch.bool).tril(behind)
        scores = scores.masked_fill(~seen, -torch.inf)
    if handle is not None:
        mask = layer.tensor(handle)
        if mask.dim() != 4 or mask.shape[2:] != scores.shape[2:] or mask.dtype not in (torch.bool, query.dtype):
            layer.fail(f"mask {mask.dtype} {list(mask.shape)} of {query.dtype} {list(scores.shape)}")
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + wide(mask)
    return (scores.softmax(dim=-1) @ value).to(query.dtype)


def kv_cache_update(layer: Reading) -> Tensor:
    """IKVCacheUpdateLayer, linear and padded: row i of the update is written from position `write_indices[i]` on, and
    has to end within the cache. The cache is an input of the network, the result an output: they share memory."""
    cache, update, write_indices = (layer.input(index) for index in range(3))
    layer.expect("cache_mode", trt.KVCacheMode.LINEAR)
    layer.expect("update_form", trt.AttentionIOForm.PADDED_BHND)
    layer.expect("update_lengths", None)
    layer.alike(cache, update, rank=True)
    if not layer.thing.get_input(0).is_network_input or not layer.thing.get_output(0).is_network_output:
        layer.fail("the cache has to be an input of the network, and the result an output")
    rows, count = cache.shape[0], update.shape[2]
    if tuple(write_indices.shape) != (rows,) or update.shape[0] != rows:
        layer.fail(f"{list(update.shape)} at {list(write_indices.shape)} of {list(cache.shape)}")
    updated = cache.clone()
    for row, first in enumerate(write_indices.tolist()):
        if not 0 <= first <= cache.shape[2] - count:
            layer.fail(f"writes {count} positions from {first} on into {cache.shape[2]}")
        updated[row, :, first : first + count] = update[row]
    return updated


def rotary_embedding(layer: Reading) -> Tensor:
    """IRotaryEmbeddingLayer of x [B, H, S, D]: the first `rotary_embedding_dim` columns (0: all) are pairs, columns
    (2j, 2j + 1) if interleaved, else (j, j + half); each turns by its angle. Tables [B, S, half], or [positions, half]
    with position ids [B, S] as input 3."""
    x, cos, sin, positions = layer.input(0), layer.input(1), layer.input(2), layer.optional(3)
    layer.alike(x, cos, sin)
    width, interleaved = layer.get("rotary_embedding_dim") or x.shape[3], layer.get("interleaved")
    if positions is not None:
        layer.within(positions, cos.shape[0])
        cos, sin = cos[positions.long()], sin[positions.long()]
    if not cos.shape == sin.shape == (x.shape[0], x.shape[2], width // 2):
        layer.fail(f"tables {list(cos.shape)} and {list(sin.shape)} of {list(x.shape)}, {width} columns")
    c, s = wide(cos)[:, None], wide(sin)[:, None]
    order = torch.arange(width)
    first, second = (order[0::2], order[1::2]) if interleaved else order.chunk(2)
    result, a, b = wide(x).clone(), wide(x)[..., first], wide(x)[..., second]
    result[..., first], result[..., second] = a * c - b * s, b * c + a * s
    return result.to(x.dtype)
