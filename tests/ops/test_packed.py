"""Packed attention is Hugging Face's rotation and torch's attention of one sequence; last tokens come by count."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.testing import assert_close
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from ditto import ops
from ditto.ops.attention import visible
from ditto.reference import TOLERANCE

TOKENS, HEADS, KV_HEADS, WIDTH = 7, 6, 2, 8
FLOATS = (torch.float32, torch.float16, torch.bfloat16)


def _tables(columns, positions=12):
    angles = torch.outer(torch.arange(positions).float(), 0.3 ** torch.arange(columns // 2))
    return angles.cos(), angles.sin()


def _split(qkv):
    rows = qkv.reshape(1, TOKENS, HEADS + 2 * KV_HEADS, WIDTH).transpose(1, 2)
    return rows.split([HEADS, KV_HEADS, KV_HEADS], dim=1)


def _attended(query, key, value, scale, window):
    keys, values = (x.repeat_interleave(HEADS // KV_HEADS, dim=1) for x in (key, value))
    seen = visible(TOKENS, window) if window else visible(TOKENS)
    result = scaled_dot_product_attention(query, keys, values, attn_mask=seen, scale=scale)
    return result.transpose(1, 2).reshape(TOKENS, HEADS * WIDTH)


@pytest.mark.parametrize("window", [0, 3])
@pytest.mark.parametrize("columns", [8, 4])
@pytest.mark.parametrize("dtype", FLOATS)
def test_it_is_hugging_faces_rope_and_torchs_attention(dtype, columns, window):
    qkv = torch.randn(TOKENS, (HEADS + 2 * KV_HEADS) * WIDTH, generator=torch.Generator().manual_seed(0)).to(dtype)
    cos, sin = (table.to(dtype) for table in _tables(columns))
    query, key, value = _split(qkv)
    doubled = [torch.cat((table, table), -1)[None, :TOKENS] for table in (cos, sin)]
    turned = apply_rotary_pos_emb(query[..., :columns], key[..., :columns], *doubled)
    query, key = (torch.cat((new, old[..., columns:]), -1) for new, old in zip(turned, (query, key), strict=True))
    found = ops.packed_attention(qkv, cos, sin, HEADS, KV_HEADS, False, 0.4, window, 0.0, 0)
    assert_close(found, _attended(query, key, value, 0.4, window), **TOLERANCE[dtype])


def test_without_tables_nothing_is_rotated_and_a_batch_axis_stays():
    qkv = torch.randn(1, TOKENS, (HEADS + 2 * KV_HEADS) * WIDTH)
    found = ops.packed_attention(qkv, None, None, HEADS, KV_HEADS, False, 0.4, 0, 0.0, 0)
    assert found.shape == (1, TOKENS, HEADS * WIDTH)
    assert_close(found[0], _attended(*_split(qkv[0]), 0.4, 0), **TOLERANCE[torch.float32])


def test_interleaved_pairs_are_the_others_with_their_columns_in_another_order():
    qkv = torch.randn(TOKENS, (HEADS + 2 * KV_HEADS) * WIDTH)
    cos, sin = _tables(WIDTH)
    order = torch.arange(WIDTH).reshape(2, -1).T.flatten()  # column 2j of the one is column j of the other
    back = qkv.reshape(TOKENS, -1, WIDTH).clone()
    back[:, : HEADS + KV_HEADS] = back[:, : HEADS + KV_HEADS][..., order]
    rest = (HEADS, KV_HEADS)
    found = ops.packed_attention(back.reshape(TOKENS, -1), cos, sin, *rest, True, 0.4, 0, 0.0, 0)
    assert_close(found, ops.packed_attention(qkv, cos, sin, *rest, False, 0.4, 0, 0.0, 0))


@pytest.mark.parametrize("tables", [None, WIDTH])
def test_the_fake_of_attention_has_the_shape_of_the_real_one(tables):
    qkv = torch.randn(TOKENS, (HEADS + 2 * KV_HEADS) * WIDTH)
    cos, sin = _tables(tables) if tables else (None, None)
    given = (qkv, cos, sin, HEADS, KV_HEADS, False, 0.4, 0, 0.0, 0)
    torch.library.opcheck(torch.ops.ditto.packed_attention.default, given)


@pytest.mark.parametrize("integer", [torch.int32, torch.int64])
def test_last_tokens_are_those_before_each_end(integer):
    x, ends = torch.randn(7, 4), torch.tensor([3, 4, 7], dtype=integer)
    assert torch.equal(ops.packed_last_tokens(x, ends), x[[2, 3, 6]])
    assert torch.equal(ops.packed_last_tokens(x[None], ends), x[None, [2, 3, 6]])
    torch.library.opcheck(torch.ops.ditto.packed_last_tokens.default, (x, ends))
