"""The inputs of a step have the values of the contract's tables (LLM 2 and 4.2, multimodal 3.1)."""

from __future__ import annotations

import pytest
import torch
from attrs import evolve

from ditto.errors import ShapeError
from ditto.targets.trtllm.blocks import BlockPools, CacheLayout
from ditto.targets.trtllm.step import Part, StepMaker

MAKER = StepMaker(
    vocab_size=100,
    max_batch_size=4,
    max_seq_len=64,
    prompt_rows=10,
    windows=(5, 64),
    width=3,
    dtype=torch.float16,
)
LAYOUT = CacheLayout((1, 1), (0, 0), 16, 8, torch.float16)
IMAGES = [torch.full((2, 3), 7.0), torch.full((1, 3), 8.0)]
PARTS = [
    Part(2, (9, 100, 101, 4), past=0, prompt=4, features=IMAGES[0]),
    Part(0, (5, 6), past=3, prompt=8, features=None),
    Part(1, (55,), past=6, prompt=5, features=IMAGES[1]),
]


@pytest.fixture
def inputs():
    pools = BlockPools(LAYOUT, 4, 64)
    for part in PARTS:
        pools.hold(part.sequence, part.past + len(part.ids))
    return MAKER.inputs(PARTS, pools)


def test_lengths_and_positions(inputs):
    """A whole prompt; two tokens [3, 5) of a longer one; the second new token after a prompt of 5."""
    wanted = {
        "input_ids": [9, 100, 101, 4, 5, 6, 55],
        "position_ids": [0, 1, 2, 3, 3, 4, 6],
        "last_token_ids": [4, 6, 7],
        "sequence_length": [4, 5, 7],
        "host_request_types": [0, 0, 1],
        "host_past_key_value_lengths": [4, 5, 6],
        "context_lengths": [4, 2, 5],
        "host_context_lengths": [4, 2, 5],
        "host_max_attention_window_sizes": [5, 64],
        "host_sink_token_length": [0],
        "tasks": [0, 0, 0, 0, 1, 1, 2],
        "prompt_vocab_size": [2],
    }
    for name, numbers in wanted.items():
        assert inputs[name].tolist() == numbers, name
        assert inputs[name].dtype == torch.int32, name


def test_each_sequence_has_its_own_rows_of_the_table(inputs):
    table = inputs["prompt_embedding_table"]
    assert table.shape == (10, 3) and table.dtype == torch.float16
    assert (table[0:2] == 7).all() and table[2:4].isnan().all()
    assert (table[4] == 8).all() and table[5:].isnan().all()
    # The row that the embedding computes: tasks * prompt_vocab_size + id - vocab_size (contract, LLM 2.2).
    ids, tasks = inputs["input_ids"], inputs["tasks"]
    rows = (tasks * inputs["prompt_vocab_size"] + ids - 100)[ids >= 100]
    assert torch.equal(table[rows.long()], IMAGES[0].half())


def test_the_cache_of_each_sequence(inputs):
    offsets = inputs["kv_cache_block_offsets"]
    assert offsets.shape == (1, 3, 2, 4)
    assert torch.equal(offsets, inputs["host_kv_cache_block_offsets"])
    assert offsets.data_ptr() != inputs["host_kv_cache_block_offsets"].data_ptr()
    assert inputs["cache_indirection"].shape == (3, 1, 64)
    assert inputs["host_kv_cache_pool_mapping"].tolist() == [[0, 0], [0, 1]]


def test_a_text_engine_has_no_table():
    pools = BlockPools(LAYOUT, 4, 64)
    pools.hold(0, 2)
    made = evolve(MAKER, prompt_rows=0).inputs([Part(0, (1, 2), 0, 2, None)], pools)
    assert not {"prompt_embedding_table", "tasks", "prompt_vocab_size"} & set(made)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "0 sequences in a step, the engine accepts 4"),
        (PARTS[:1] * 5, "5 sequences in a step, the engine accepts 4"),
        ([Part(0, (1,), 0, 1, torch.zeros(3, 3))], "3 rows for the prompt table, each request has 2"),
        ([Part(0, (102,), 0, 1, IMAGES[0])], "token 102 is none of 100 and 2 rows of images"),
        ([Part(0, (1, 2), 3, 3, None)], "2 new tokens after a prompt, not one"),
    ],
)
def test_parts_that_do_not_fit_are_refused(parts, message):
    pools = BlockPools(LAYOUT, 4, 64)
    with pytest.raises(ShapeError, match=message):
        MAKER.inputs(parts, pools)


@pytest.mark.parametrize(
    ("defaults", "windows"),
    [(None, (64, 64, 64)), ({"max_attention_window": [5, 64]}, (5, 64, 5)), ({}, (64, 64, 64))],
)
def test_windows_are_repeated_over_the_layers(defaults, windows):
    model = {"runtime_defaults": defaults, "vocab_size": 100, "hidden_size": 3, "dtype": "float16"}
    build = {"max_seq_len": 64, "max_batch_size": 4, "max_prompt_embedding_table_size": 10}
    made = StepMaker.of({"pretrained_config": model, "build_config": build}, layers=3)
    assert made == evolve(MAKER, windows=windows)
    assert made.prompt_rows_per_sequence == 2
