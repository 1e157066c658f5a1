"""The paged cache gives back what was put in, wherever its blocks lie; attention over it is torch's."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.testing import assert_close

from ditto.reference import TOLERANCE
from ditto.targets.trtllm.paged import PagedCache, attend

HEADS, SIZE, WIDTH, LAYERS, BLOCKS = 2, 4, 8, 3, 9


def _cache(pool, layer, blocks):
    """A layer's view; `blocks` says which blocks each sequence holds."""
    offsets = torch.zeros(1, len(blocks), 2, max(map(len, blocks)), dtype=torch.int32)
    for row, held in enumerate(blocks):
        for kind in (0, 1):
            offsets[0, row, kind, : len(held)] = torch.tensor(held) * LAYERS * 2 + kind
    pointers = torch.tensor([[pool.data_ptr(), 0]])
    return PagedCache.of_layer(offsets, pointers, torch.tensor([0, layer]), (HEADS, SIZE, WIDTH), pool.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_what_is_written_is_read_whatever_else_is_written(dtype):
    pool = torch.zeros(BLOCKS, LAYERS, 2, HEADS, SIZE, WIDTH, dtype=dtype)
    written = {}
    generator = torch.Generator().manual_seed(0)
    for layer in range(LAYERS):
        cache = _cache(pool, layer, [[7, 0, 3], [2, 5]])
        for sequence, parts in ((0, (5, 1, 4)), (1, (8,))):
            keys, values = torch.randn(2, HEADS, sum(parts), WIDTH, generator=generator).to(dtype)
            start = 0
            for part in parts:
                cache.write(sequence, start, keys[:, start : start + part], values[:, start : start + part])
                start += part
            written[layer, sequence] = keys, values
    for (layer, sequence), (keys, values) in written.items():
        cache = _cache(pool, layer, [[7, 0, 3], [2, 5]])
        found = cache.read(sequence, keys.shape[1])
        assert torch.equal(found[0], keys) and torch.equal(found[1], values)


def test_a_block_is_one_stretch_of_memory_for_all_layers():
    """Contract, LLM 4.5: block, layer, keys then values, [KV heads, tokens, width]."""
    pool = torch.zeros(BLOCKS, LAYERS, 2, HEADS, SIZE, WIDTH)
    _cache(pool, 1, [[4]]).write(0, 2, torch.full((HEADS, 1, WIDTH), 3.0), torch.full((HEADS, 1, WIDTH), 5.0))
    assert pool[4, 1, 0, :, 2].eq(3).all() and pool[4, 1, 1, :, 2].eq(5).all()
    assert pool.sum() == HEADS * WIDTH * 8


@pytest.mark.parametrize("window", [100, 3])
@pytest.mark.parametrize("count", [1, 4, 9])
def test_attention_of_the_last_tokens_is_torchs(count, window):
    generator = torch.Generator().manual_seed(count)
    query = torch.randn(6, 9, WIDTH, generator=generator)
    keys, values = torch.randn(2, HEADS, 9, WIDTH, generator=generator)
    seen = torch.ones(9, 9, dtype=torch.bool).tril() & ~torch.ones(9, 9, dtype=torch.bool).tril(-window)
    repeated = (x.repeat_interleave(3, dim=0)[None] for x in (keys, values))
    wanted = scaled_dot_product_attention(query[None], *repeated, attn_mask=seen, scale=0.3)[0, :, -count:]
    found = attend(query[:, -count:], keys, values, 0.3, 0.0, window)
    assert_close(found, wanted, **TOLERANCE[torch.float32])


def test_a_soft_cap_bounds_the_scores_before_the_mask():
    query, keys, values = torch.randn(1, 3, 4), torch.randn(1, 3, 4), torch.randn(1, 3, 4)
    scores = 2.0 * torch.tanh(query @ keys.mT * 5.0 / 2.0)
    scores = scores.masked_fill(~torch.ones(3, 3, dtype=torch.bool).tril(), float("-inf"))
    assert_close(attend(query, keys, values, 5.0, 2.0, 3), scores.softmax(-1) @ values)
