"""Ranges and attention inputs are the contract's (LLM 2.0 and 2.1)."""

from __future__ import annotations

import torch

from ditto.configs import Limits, TrtllmConfig
from ditto.targets.trtllm.contract import attention_specs, ranges

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


def test_attention_inputs():
    found = {name: (spec.dtype, [str(dim) for dim in spec.shape]) for name, spec in attention_specs(4).items()}
    sequences, offsets = ["batch_size_beam_width"], ["1", "batch_size_beam_width", "2", "max_blocks_per_seq"]
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
        "host_kv_cache_pool_pointers": (torch.int64, ["1", "2"]),
        "host_kv_cache_pool_mapping": (torch.int32, ["4", "2"]),
    }
