"""Blocks of the paged cache: who holds which, and the numbers by which the attention plugin finds them."""

from __future__ import annotations

import ctypes

import pytest
import torch

from ditto.errors import ShapeError
from ditto.network import Network, Spec
from ditto.targets.trtllm.blocks import BlockPools, CacheLayout
from tests.support.models import TEXT_MODELS, llama
from tests.support.texts import packed_tree, runtime_of

LAYOUT = CacheLayout(kv_heads=(2, 1, 2), windows=(0, 0, 0), tokens_per_block=4, head_size=8, dtype=torch.float32)


def test_layers_with_as_many_heads_share_a_pool():
    assert LAYOUT.pools == (2, 1)
    assert LAYOUT.mapping().tolist() == [[0, 0], [1, 0], [0, 1]]


def test_a_network_says_what_its_cache_is_like(tmp_path):
    runtime = runtime_of(packed_tree(llama(), tmp_path / "tree", block=32))
    assert runtime.pools.layout == CacheLayout((2, 2), (0, 0), 32, 16, torch.float32)


@pytest.mark.parametrize(
    ("version", "mapping"),
    [("0.18.2", [0, 0]), ("0.19.0", [[0, 0], [0, 1]]), ("0.20.0", [[0, 0], [1, 0]]), ("1.2.0", [[0, 0], [1, 0]])],
)
def test_windows_have_pools_of_their_own_in_versions_that_part_them(version, mapping, tmp_path):
    tree = packed_tree(TEXT_MODELS["gemma2 with soft-caps and windows"](), tmp_path / "tree", version=version)
    pools = runtime_of(tree).pools
    assert pools.layout.mapping().tolist() == mapping
    assert [memory.shape[1] for memory in pools.memory] == ([1, 1] if len(pools.layout.pools) == 2 else [2])


def test_a_network_without_attention_has_no_cache():
    network = Network("llm")
    network.input("x", Spec((1,), torch.int32))
    with pytest.raises(ShapeError, match="cannot share a KV cache"):
        CacheLayout.of(network)


def test_a_sequence_holds_as_many_blocks_as_its_tokens_need():
    pools = BlockPools(LAYOUT, sequences=2, max_tokens=10)
    assert pools.blocks_per_sequence == 3
    nobodys = 6
    pools.hold(0, 5)
    pools.hold(1, 4)
    blocks = pools.offsets([0, 1])[1, :, 0] // 2  # a pool of one layer
    assert (blocks == nobodys).tolist() == [[False, False, True], [False, True, True]]
    assert len(set(blocks[blocks != nobodys].tolist())) == 3
    pools.hold(0, 8)
    assert torch.equal(pools.offsets([0])[1, :, 0] // 2, blocks[:1])
    pools.hold(0, 9)
    assert nobodys not in (pools.offsets([0])[1, :, 0] // 2).tolist()[0]


def test_offsets_count_half_blocks_of_the_whole_pool():
    pools = BlockPools(LAYOUT, sequences=2, max_tokens=10)
    pools.hold(0, 10)
    pools.hold(1, 10)
    offsets, pointers = pools.offsets([1, 0]), pools.pointers()
    assert offsets.shape == (2, 2, 2, 3) and offsets.dtype == torch.int32
    for layer, (pool, place) in enumerate(LAYOUT.mapping().tolist()):
        memory = pools.memory[pool]
        half = LAYOUT.kv_heads[layer] * 4 * 8
        for kind in (0, 1):
            block = int(offsets[1 - pool, 0, 0, 1]) // (2 * pools.memory[1 - pool].shape[1])  # the same in both pools
            address = int(pointers[pool, 0]) + (2 * place + int(offsets[pool, 0, kind, 1])) * half * 4
            memory[block, place, kind] = layer + kind / 2
            found = torch.frombuffer((ctypes.c_float * half).from_address(address), dtype=torch.float32)
            assert found.unique().tolist() == [layer + kind / 2]


def test_blocks_of_who_left_are_clean_and_serve_others():
    pools = BlockPools(LAYOUT, sequences=1, max_tokens=4)
    pools.hold(0, 4)
    held = pools.offsets([0])
    pools.memory[0][:] = 1.0
    pools.release(0)
    pools.hold(7, 1)
    assert torch.equal(pools.offsets([7]), held)
    assert pools.memory[0][0].isnan().all()


@pytest.mark.parametrize(("sequence", "tokens"), [(0, 13), (2, 1)])
def test_more_than_there_is_room_for_is_refused(sequence, tokens):
    pools = BlockPools(LAYOUT, sequences=2, max_tokens=10)
    pools.hold(0, 10)
    pools.hold(1, 10)
    with pytest.raises(ShapeError, match=f"no room in the KV cache for {tokens} tokens of sequence {sequence}"):
        pools.hold(sequence, tokens)
