"""The attention operator is softmax(q k^T) v with everything a model may say about it."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.testing import assert_close

from ditto import ops
from ditto.ops.attention import visible
from ditto.reference import TOLERANCE

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
BATCH, HEADS, LENGTH, WIDTH, SCALE = 2, 6, 7, 8, 0.4


def _operands(groups=HEADS, dtype=torch.float32):
    generator = torch.Generator().manual_seed(groups)
    shapes = [(BATCH, heads, LENGTH, WIDTH) for heads in (HEADS, groups, groups)]
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


def _masks():
    generator = torch.Generator().manual_seed(0)
    seen = torch.rand(BATCH, 1, LENGTH, LENGTH, generator=generator) > 0.4
    seen |= torch.eye(LENGTH, dtype=torch.bool)
    return {
        "none": None,
        "bool": seen,
        "bool per position": seen[0, 0],
        "added": torch.randn(1, HEADS, LENGTH, LENGTH, generator=generator),
    }


def _by_hand(query, key, value, mask, sinks, scale, causal, window, softcap):
    """One query at a time, over the keys that it sees, in float64."""
    result = torch.zeros_like(query, dtype=torch.float64)
    group = query.shape[1] // key.shape[1]
    if mask is not None:
        mask = mask.expand(BATCH, HEADS, LENGTH, LENGTH)
    for b, h, s in product(range(BATCH), range(HEADS), range(LENGTH)):
        scores, rows = [], []
        for k in range(LENGTH):
            if causal and (k > s or (window and k <= s - window)):
                continue
            if mask is not None and mask.dtype == torch.bool and not mask[b, h, s, k]:
                continue
            score = float(query[b, h, s].double() @ key[b, h // group, k].double()) * scale
            if softcap:
                score = softcap * float(torch.tanh(torch.tensor(score / softcap, dtype=torch.float64)))
            if mask is not None and mask.dtype != torch.bool:
                score += float(mask[b, h, s, k])
            scores.append(score)
            rows.append(value[b, h // group, k].double())
        powers = torch.tensor(scores, dtype=torch.float64).exp()
        total = powers.sum() + (0 if sinks is None else sinks[h].double().exp())
        result[b, h, s] = (powers / total) @ torch.stack(rows)
    return result


@pytest.mark.parametrize("groups", [HEADS, 3, 1])
@pytest.mark.parametrize("mask", ["none", "bool", "bool per position", "added"])
@pytest.mark.parametrize("softcap", [0.0, 0.5])
@pytest.mark.parametrize("with_sinks", [False, True])
def test_attention_is_a_softmax_over_the_keys_that_are_seen(groups, mask, softcap, with_sinks):
    given = _masks()[mask]
    sinks = torch.linspace(-1, 1, HEADS) if with_sinks else None
    facts = (SCALE, False, 0, softcap)
    found = ops.attention(*_operands(groups), given, sinks, *facts, 0)
    assert_close(found.double(), _by_hand(*_operands(groups), given, sinks, *facts), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("window", [0, 1, 2, LENGTH - 1, LENGTH, LENGTH + 1])
@pytest.mark.parametrize("softcap", [0.0, 0.5])
def test_a_causal_window_of_n_sees_the_token_itself_and_n_minus_1_before(window, softcap):
    facts = (SCALE, True, window, softcap)
    found = ops.attention(*_operands(2), None, None, *facts, 0)
    assert_close(found.double(), _by_hand(*_operands(2), None, None, *facts), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", ["none", "bool", "added"])
def test_attention_agrees_with_torchs_own(dtype, causal, mask):
    query, key, value = _operands(2, dtype)
    given = _masks()[mask]
    given = given.to(dtype) if mask == "added" else given
    both = given
    if causal and mask != "none":
        both = given & visible(LENGTH) if mask == "bool" else given.masked_fill(~visible(LENGTH), float("-inf"))
    wanted = scaled_dot_product_attention(
        query, key, value, attn_mask=both, is_causal=causal and both is None, scale=SCALE, enable_gqa=True
    )
    found = ops.attention(query, key, value, given, None, SCALE, causal, 0, 0.0, 0)
    assert_close(found, wanted, **TOLERANCE[dtype])


def test_slopes_add_what_lies_between_query_and_key():
    slopes = torch.linspace(0.1, 2, HEADS)
    bias = torch.zeros(1, HEADS, LENGTH, LENGTH)
    for head, query, key in product(range(HEADS), range(LENGTH), range(LENGTH)):
        bias[0, head, query, key] = slopes[head] * (key - query)
    found = ops.attention(*_operands(2), None, None, SCALE, True, 3, 0.0, 0, slopes)
    assert_close(found, ops.attention(*_operands(2), bias, None, SCALE, True, 3, 0.0, 0))


def test_values_may_have_another_width_than_keys():
    query, key, value = _operands(2)
    for width in (1, 3):
        found = ops.attention(query, key, value[..., :width], None, None, SCALE, True, 0, 0.0, 0)
        assert_close(found, ops.attention(query, key, value, None, None, SCALE, True, 0, 0.0, 0)[..., :width])


def test_the_layer_index_changes_nothing():
    first, second = (ops.attention(*_operands(2), None, None, SCALE, True, 3, 0.0, layer) for layer in (0, 5))
    assert torch.equal(first, second)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("contiguous", [True, False])
def test_the_fake_has_the_shape_dtype_and_layout_of_the_real_one(dtype, contiguous):
    query, key, value = _operands(2, dtype)
    if not contiguous:  # as Hugging Face's heads are
        query, key, value = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (query, key, value))
    sinks = torch.zeros(HEADS, dtype=dtype)
    torch.library.opcheck(
        torch.ops.ditto.attention.default, (query, key, value, _masks()["bool"], sinks, SCALE, True, 2, 1.0, 1)
    )


def test_visible_is_a_lower_triangle_with_a_window():
    assert visible(4).int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    assert visible(4, 2).int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
