"""A paged cache gives back what was written, wherever its blocks lie; attention is PyTorch's."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from ditto.reference import TOLERANCE
from ditto.targets.trtllm.blocks import BlockPools, CacheLayout
from ditto.targets.trtllm.paged import PagedCache, attend

HEADS, BLOCK, WIDTH = 2, 4, 8


@pytest.fixture
def pools():
    layout = CacheLayout((HEADS, HEADS), BLOCK, WIDTH, torch.float32)
    made = BlockPools(layout, sequences=2, max_tokens=14)
    made.hold(0, 14)
    made.hold(1, 14)
    return made


def view(pools, layer):
    half = (HEADS, BLOCK, WIDTH)
    mapping = pools.layout.mapping()[layer]
    return PagedCache.of_layer(pools.offsets([0, 1]), pools.pointers(), mapping, half, torch.float32)


def test_what_is_written_in_parts_is_read_as_a_whole(pools):
    torch.manual_seed(0)
    written = torch.randn(2, 2, 2, HEADS, 14, WIDTH)  # layers, sequences, keys and values
    for layer in (0, 1):
        for sequence in (0, 1):
            start = 0
            for count in (3, 6, 1, 4):
                keys, values = written[layer, sequence, :, :, start : start + count]
                view(pools, layer).write(sequence, start, keys, values)
                start += count
    for layer in (0, 1):
        for sequence in (0, 1):
            for count in (1, 4, 9, 14):
                found = torch.stack(view(pools, layer).read(sequence, count))
                assert torch.equal(found, written[layer, sequence, :, :, :count])


def test_a_half_block_is_one_stretch_per_head(pools):
    keys = torch.arange(HEADS * 2 * WIDTH).reshape(HEADS, 2, WIDTH).float()
    view(pools, 1).write(0, 2, keys, -keys)
    block = int(pools.offsets([0])[0, 0, 0, 0]) // 4  # two layers, keys and values
    assert torch.equal(pools.memory[0][block, 1, 0][:, 2:], keys)
    assert torch.equal(pools.memory[0][block, 1, 1][:, 2:], -keys)


@pytest.mark.parametrize("window", [3, 99])
def test_attention_is_that_of_pytorch(window):
    torch.manual_seed(0)
    query, keys, values = torch.randn(4, 5, WIDTH), torch.randn(2, 9, WIDTH), torch.randn(2, 9, WIDTH)
    distance = torch.arange(4, 9)[:, None] - torch.arange(9)
    seen = (distance >= 0) & (distance < window)
    wanted = scaled_dot_product_attention(query, keys, values, attn_mask=seen, scale=0.3, enable_gqa=True)
    torch.testing.assert_close(attend(query, keys, values, 0.3, 0.0, window), wanted, **TOLERANCE[torch.float32])


def test_a_soft_cap_bounds_the_scores_before_the_mask():
    torch.manual_seed(0)
    query, keys, values = 9 * torch.randn(2, 3, WIDTH), torch.randn(2, 3, WIDTH), torch.randn(2, 3, WIDTH)
    scores = 2.0 * torch.tanh(query @ keys.transpose(1, 2) * 0.5 / 2.0)
    wanted = (scores + torch.full((3, 3), float("-inf")).triu(1)).softmax(-1) @ values
    torch.testing.assert_close(attend(query, keys, values, 0.5, 2.0, 99), wanted, **TOLERANCE[torch.float32])
