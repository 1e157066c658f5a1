"""Attention, the KV cache and rotary embedding against their definitions, written out."""

from __future__ import annotations

import pytest
import torch

from ditto.errors import ShapeError
from ditto.network.layers import Attention, KVCacheUpdate, RotaryEmbedding
from tests.support.layers import FLOATS, check_layer, emitted, network_of
from tests.support.networks import refusal, spec


def attend(query, key, value, mask):
    """Softmax written out, head by head, in float64."""
    group = query.shape[1] // key.shape[1]
    result = torch.empty_like(query)
    for head in range(query.shape[1]):
        keys, values = (x[:, head // group].double() for x in (key, value))
        weights = torch.einsum("bsd,bkd->bsk", query[:, head].double(), keys).exp() * mask[:, 0]
        result[:, head] = (weights / weights.sum(-1, keepdim=True)) @ values
    return result


def qkv(heads, kv_heads, queries, keys, dtype):
    shapes = (2, heads, queries, 8), (2, kv_heads, keys, 8), (2, kv_heads, keys, 8)
    return [torch.randn(shape).mul(0.7).to(dtype) for shape in shapes]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("keys", [3, 5])
def test_attention_is_softmax_of_scores_per_group_of_heads(kv_heads, keys, dtype):
    inputs = qkv(4, kv_heads, 3, keys, dtype)
    check_layer(Attention(), inputs, attend(*inputs, torch.ones(2, 1, 3, keys)))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("queries", "keys"), [(4, 4), (2, 5), (5, 2)])
def test_a_causal_query_sees_keys_up_to_its_own_index(queries, keys, dtype):
    inputs = qkv(4, 2, queries, keys, dtype)
    mask = torch.arange(keys)[None] <= torch.arange(queries)[:, None]
    check_layer(Attention(causal=True), inputs, attend(*inputs, mask.expand(2, 1, queries, keys)))


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_masked_query_sees_what_the_mask_says(dtype):
    inputs = qkv(4, 2, 3, 5, dtype)
    mask = torch.rand(2, 1, 3, 5) < 0.5
    mask[..., 2] = True
    check_layer(Attention(), [*inputs, mask], attend(*inputs, mask))


@pytest.mark.parametrize("masked", [True, False])
def test_batch_queries_and_keys_may_be_named(masked):
    query, key = spec("float16[batch, 4, sequence, 8]"), spec("float16[batch, 2, keys, 8]")
    mask = [spec("bool[batch, 1, sequence, keys]")] if masked else []
    network = network_of(Attention(causal=not masked), [query, key, key, *mask])
    assert network.value(network.outputs["result"]).spec == query
    emitted(network)


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        (
            ["float32[2, 4, 3, 8]", "float16[2, 4, 3, 8]", "float32[2, 4, 3, 8]"],
            "needs equal dtypes, got float32[2, 4, 3, 8] and float16[2, 4, 3, 8] and float32[2, 4, 3, 8]",
        ),
        (["int32[2, 4, 3, 8]"] * 3, "needs a floating dtype, got int32[2, 4, 3, 8]"),
        (["float32[2, 3, 8]"] * 3, "needs rank 4, got float32[2, 3, 8]"),
        (
            ["float32[2, 4, 3, 8]", *["float32[2, 3, 5, 8]"] * 2],
            "float32[2, 4, 3, 8] does not have a multiple of the heads of float32[2, 3, 5, 8]",
        ),
        (
            ["float32[2, 4, 3, 8]", "float32[2, 2, 5, 8]", "float32[2, 2, 6, 8]"],
            "query float32[2, 4, 3, 8], key float32[2, 2, 5, 8] and value float32[2, 2, 6, 8] do not fit",
        ),
        (
            ["float32[2, 4, 3, 8]", *["float32[2, 2, 5, 6]"] * 2],
            "query float32[2, 4, 3, 8], key float32[2, 2, 5, 6] and value float32[2, 2, 5, 6] do not fit",
        ),
        (
            [*["float32[2, 4, 3, 8]"] * 3, "float32[2, 1, 3, 3]"],
            "mask float32[2, 1, 3, 3] does not fit query float32[2, 4, 3, 8] and key float32[2, 4, 3, 8]",
        ),
        (
            [*["float32[2, 4, 3, 8]"] * 3, "bool[2, 4, 3, 3]"],
            "mask bool[2, 4, 3, 3] does not fit query float32[2, 4, 3, 8] and key float32[2, 4, 3, 8]",
        ),
    ],
)
def test_attention_refuses_what_does_not_fit(specs, message):
    assert refusal(Attention(), *specs) == message


def test_causal_attention_takes_no_mask():
    specs = [*["float32[2, 4, 3, 8]"] * 3, "bool[2, 1, 3, 3]"]
    assert refusal(Attention(causal=True), *specs) == "causal attention accepts no mask"


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("indices", [(0, 3), (5, 5), (4, 0)])
def test_rows_are_written_at_their_own_index(indices, dtype):
    cache, update = torch.randn(2, 3, 8, 4).to(dtype), torch.randn(2, 3, 3, 4).to(dtype)
    before, wanted = cache.clone(), cache.clone()
    for row, start in enumerate(indices):
        for position in range(3):
            wanted[row, :, start + position] = update[row, :, position]
    check_layer(KVCacheUpdate(), [cache, update, torch.tensor(indices, dtype=torch.int32)], wanted)
    assert torch.equal(cache, before)


@pytest.mark.parametrize("indices", [(0, 6), (-1, 0)])
def test_no_row_is_written_past_the_cache(indices):
    cache, update = torch.randn(2, 3, 8, 4), torch.randn(2, 3, 3, 4)
    with pytest.raises(ShapeError, match="writes 3 tokens at"):
        KVCacheUpdate().reference(cache, update, torch.tensor(indices, dtype=torch.int32))


def test_batch_and_written_length_of_a_cache_may_be_named():
    cache = spec("float16[batch, 2, 8, 4]")
    network = network_of(KVCacheUpdate(), [cache, spec("float16[batch, 2, sequence, 4]"), spec("int32[batch]")])
    assert network.value(network.outputs["result"]).spec == cache
    emitted(network)


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        (
            ["float32[2, 3, 8, 4]", "float16[2, 3, 1, 4]", "int32[2]"],
            "needs equal dtypes, got float32[2, 3, 8, 4] and float16[2, 3, 1, 4]",
        ),
        (
            ["float32[2, 3, 8, 4]", "float32[2, 2, 1, 4]", "int32[2]"],
            "update float32[2, 2, 1, 4] does not fit cache float32[2, 3, 8, 4]",
        ),
        (
            ["float32[2, 3, 8, 4]", "float32[2, 3, 1, 5]", "int32[2]"],
            "update float32[2, 3, 1, 5] does not fit cache float32[2, 3, 8, 4]",
        ),
        (
            ["float32[2, 3, 8, 4]", "float32[2, 3, 1, 4]", "int64[2]"],
            "write indices int64[2] do not fit cache float32[2, 3, 8, 4]",
        ),
        (
            ["float32[2, 3, 8, 4]", "float32[2, 3, 1, 4]", "int32[1]"],
            "write indices int32[1] do not fit cache float32[2, 3, 8, 4]",
        ),
    ],
)
def test_a_cache_refuses_what_does_not_fit(specs, message):
    assert refusal(KVCacheUpdate(), *specs) == message


def turn(x, angles, interleaved):
    """Pairs as complex numbers, each times e^(i angle); x float64 [.., width], angles [.., width / 2]."""
    pairs = x.unflatten(-1, (-1, 2)) if interleaved else x.unflatten(-1, (2, -1)).transpose(-1, -2)
    turned = torch.view_as_real(
        torch.view_as_complex(pairs.contiguous()) * torch.polar(torch.ones(()).double(), angles)
    )
    return (turned if interleaved else turned.transpose(-1, -2)).flatten(-2)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("interleaved", [True, False])
@pytest.mark.parametrize("width", [4, 8])
def test_rotation_is_complex_multiplication(interleaved, width, dtype):
    x = (torch.rand(2, 3, 4, 8) * 2 - 1).to(dtype)
    angles = torch.randint(0, 16, (2, 4, 1)).double() * 10.0 ** -torch.arange(width // 2)
    wanted = x.clone()
    wanted[..., :width] = turn(x[..., :width].double(), angles[:, None], interleaved)
    check_layer(RotaryEmbedding(interleaved, width), [x, angles.cos().to(dtype), angles.sin().to(dtype)], wanted)


def test_batch_and_sequence_of_rotation_may_be_named():
    x, turns = spec("float16[batch, 4, sequence, 8]"), spec("float16[batch, sequence, 2]")
    network = network_of(RotaryEmbedding(False, 4), [x, turns, turns])
    assert network.value(network.outputs["result"]).spec == x
    emitted(network)


X = "float32[2, 3, 5, 8]"


@pytest.mark.parametrize(
    ("width", "cos", "sin", "message"),
    [
        (
            4,
            "float16[2, 5, 2]",
            "float32[2, 5, 2]",
            f"needs equal dtypes, got {X} and float16[2, 5, 2] and float32[2, 5, 2]",
        ),
        (3, *["float32[2, 5, 1]"] * 2, f"cannot rotate 3 columns of {X}"),
        (10, *["float32[2, 5, 5]"] * 2, f"cannot rotate 10 columns of {X}"),
        (
            4,
            *["float32[2, 5, 4]"] * 2,
            f"cosines float32[2, 5, 4] and sines float32[2, 5, 4] do not fit 4 columns of {X}",
        ),
        (
            4,
            "float32[2, 5, 2]",
            "float32[1, 5, 2]",
            f"cosines float32[2, 5, 2] and sines float32[1, 5, 2] do not fit 4 columns of {X}",
        ),
        (4, *["float32[5, 2]"] * 2, f"cosines float32[5, 2] and sines float32[5, 2] do not fit 4 columns of {X}"),
        (
            4,
            *["float32[2, 3, 2]"] * 2,
            f"cosines float32[2, 3, 2] and sines float32[2, 3, 2] do not fit 4 columns of {X}",
        ),
    ],
)
def test_rotation_refuses_what_does_not_fit(width, cos, sin, message):
    assert refusal(RotaryEmbedding(False, width), X, cos, sin) == message
