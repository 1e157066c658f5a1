"""Ranges and attention inputs are the contract's (LLM 2.0 and 2.1)."""

from __future__ import annotations

import pytest
import torch
from attrs import evolve

from ditto.bindings import load_native
from ditto.configs import Limits, TrtllmConfig
from ditto.targets.trtllm.contract import TYPE_ID, adjusted, attention_specs, pool_ranges, ranges
from ditto.targets.trtllm.versions import NAMES, version

LIMITS = Limits(
    max_batch_size=8, max_input_len=1024, max_seq_len=4096, max_num_tokens=8192, max_prompt_embedding_table_size=4608
)


def test_ranges_of_a_native_build():
    """The contract's Llama-2-7B with a prompt table, 1.2 and 2.0."""
    found = {name: (d.min, d.opt, d.max) for name, d in ranges(LIMITS, TrtllmConfig()).items()}
    assert found == {
        "num_tokens": (1, 8, 8192),
        "last_token_ids": (1, 4, 8),
        "batch_size_beam_width": (1, 4, 8),
        "batch_size_cache": (1, 4, 8),
        "beam_width": (1, 1, 1),
        "max_seq_len": (1, 2048, 4096),
        "max_blocks_per_seq": (1, 64, 128),
        "prompt_embedding_table_size": (1, 2304, 4608),
    }


def test_ranges_at_the_edges():
    limits = Limits(
        max_batch_size=1, max_input_len=4, max_seq_len=33, max_num_tokens=4, max_prompt_embedding_table_size=1
    )
    found = {name: (d.min, d.opt, d.max) for name, d in ranges(limits, TrtllmConfig(tokens_per_block=16)).items()}
    assert found["max_blocks_per_seq"] == (1, 2, 3)
    assert found["num_tokens"] == (1, 1, 4)
    assert found["prompt_embedding_table_size"] == (1, 1, 1)


def test_without_a_table_there_is_no_range_for_it():
    limits = Limits(max_batch_size=1, max_input_len=4, max_seq_len=33, max_num_tokens=4)
    assert "prompt_embedding_table_size" not in ranges(limits, TrtllmConfig())


def test_dtypes_have_tensorrts_own_numbers():
    names = {torch.float32: "FLOAT", torch.float16: "HALF", torch.bfloat16: "BF16"}
    kinds = load_native("tensorrt_rtx").module.DataType
    assert {dtype: int(getattr(kinds, name)) for dtype, name in names.items()} == TYPE_ID


@pytest.mark.parametrize(
    ("asked", "fused", "options", "found"),
    [
        (8192, True, {}, 8192),
        (40_000, True, {}, 8 * 4096),  # a full batch of whole sequences
        (20, True, {}, 32),  # a block
        (20, True, {"tokens_per_block": 64}, 64),
        (20, False, {}, 1024),  # a prompt, where it cannot come in parts
        (20, True, {"use_paged_context_fmha": False}, 1024),
    ],
)
def test_tokens_of_a_step_are_what_trtllm_build_makes_of_them(asked, fused, options, found):
    """Contract, LLM 9."""
    limits = evolve(LIMITS, max_num_tokens=asked)
    assert adjusted(limits, TrtllmConfig(**options), fused) == evolve(limits, max_num_tokens=found)


def test_the_number_of_pools_is_the_runtimes_from_0_19_on():
    """Contract, LLM 9: 1, 1, layers; fixed before."""
    for name in NAMES:
        found = [(d.name, d.min, d.opt, d.max) for d in pool_ranges(4, version(name)).values()]
        assert found == ([] if name == "0.18.2" else [("num_kv_cache_pools", 1, 1, 4)])


@pytest.mark.parametrize(
    ("name", "pools", "mapping"), [("0.18.2", "1", ["4"]), ("0.19.0", "num_kv_cache_pools", ["4", "2"])]
)
def test_attention_inputs(name, pools, mapping):
    specs = attention_specs(4, version(name))
    found = {name: (spec.dtype, [str(dim) for dim in spec.shape]) for name, spec in specs.items()}
    sequences, offsets = ["batch_size_beam_width"], [pools, "batch_size_beam_width", "2", "max_blocks_per_seq"]
    assert found == {
        "sequence_length": (torch.int32, sequences),
        "host_request_types": (torch.int32, sequences),
        "host_past_key_value_lengths": (torch.int32, sequences),
        "context_lengths": (torch.int32, sequences),
        "host_runtime_perf_knobs": (torch.int64, ["16"]),
        "host_context_progress": (torch.int64, ["1"]),
        "host_context_lengths": (torch.int32, sequences),
        "host_max_attention_window_sizes": (torch.int32, ["4"]),
        "host_sink_token_length": (torch.int32, ["1"]),
        "cache_indirection": (torch.int32, ["batch_size_cache", "beam_width", "max_seq_len"]),
        "kv_cache_block_offsets": (torch.int32, offsets),
        "host_kv_cache_block_offsets": (torch.int32, offsets),
        "host_kv_cache_pool_pointers": (torch.int64, [pools, "2"]),
        "host_kv_cache_pool_mapping": (torch.int32, mapping),
    }
