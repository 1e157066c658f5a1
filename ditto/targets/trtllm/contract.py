"""Engine inputs that TensorRT-LLM's runtime binds: names, types, ranges.

Source: contract, LLM 2.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from attrs import evolve

from ditto.arguments import DynamicDimension
from ditto.configs import Limits, TrtllmConfig
from ditto.engine import Assembly
from ditto.network import Dim, Spec, symbol
from ditto.targets.trtllm.versions import Version

TOKENS = "num_tokens"
LAST_TOKENS = "last_token_ids"
SEQUENCES = "batch_size_beam_width"
CACHE_SEQUENCES = "batch_size_cache"
BEAMS = "beam_width"
POSITIONS = "max_seq_len"
BLOCKS = "max_blocks_per_seq"
POOLS = "num_kv_cache_pools"
PROMPT_ROWS = "prompt_embedding_table_size"

# Values of TensorRT's DataType, as in the plugins' field `type_id` (contract 3.1 no. 33 and 9).
TYPE_ID = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 7}

MAX_BEAM_WIDTH = 1

# How TensorRT-LLM's multimodal runner assembles images of any resolution (contract, multimodal 3.2).
_LLAVA_NEXT = Assembly(
    tile=336, side=24, sizes=[[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]], shrink_above=None
)
_LLAVA_ONEVISION = Assembly(
    tile=384,
    side=27,
    sizes=[[384 * rows, 384 * columns] for rows in range(1, 7) for columns in range(1, 7)],
    shrink_above=9,
)
# Model types that the runner runs with an engine of one input, and how it assembles their images from tiles.
RUNNER_TYPES: Mapping[str, Assembly | None] = {
    "internvl": None,
    "llava": None,
    "llava_next": _LLAVA_NEXT,
    "llava_onevision": _LLAVA_ONEVISION,
}
# What the runner expects of model types that it runs otherwise (contract, multimodal 3.2 and 3.4).
OTHER_RUNNER_TYPES: Mapping[str, str] = {
    "blip-2": "it knows them as 'blip2-opt' and puts the image before the whole prompt",
    "mistral3": "since 0.20 it knows them as 'pixtral', pads images to one square size, and gives the vision engine a "
    "mask of their patches",
    "qwen2_vl": "it scales every image to 504 by 504 pixels, and gives the vision engine rotary angles and a mask, the "
    "language model cosines and sines of its positions",
}


def default_range(name: str, maximum: int) -> DynamicDimension:
    """Range from 1 to `maximum`, tuned for half of it, rounded up (contract 2.0)."""
    return DynamicDimension(name, 1, (maximum + 1) // 2, maximum)


def adjusted(limits: Limits, options: TrtllmConfig, is_fused: bool) -> Limits:
    """Limits with `max_num_tokens` adjusted as by trtllm-build (contract 9).

    It is at most a full batch of complete sequences, and at least the tokens that one prompt step needs.

    Args:
        is_fused: whether context attention is fused.
    """
    tokens = min(limits.max_num_tokens, limits.max_seq_len * limits.max_batch_size)
    fewest = [options.tokens_per_block] if is_fused else []
    if not (is_fused and options.use_paged_context_fmha):  # prompts are not split
        fewest.append(limits.max_input_len)
    return evolve(limits, max_num_tokens=max(tokens, *fewest))


def pool_ranges(layers: int, trtllm: Version) -> dict[str, DynamicDimension]:
    """Range of the number of KV cache pools (contract 9); empty if there is one pool."""
    return {POOLS: DynamicDimension(POOLS, 1, 1, layers)} if trtllm.maps_places else {}


def ranges(limits: Limits, options: TrtllmConfig) -> dict[str, DynamicDimension]:
    """Ranges of the other dimensions, as trtllm-build derives them (contract 2.0)."""
    sequences = limits.max_batch_size * MAX_BEAM_WIDTH
    typical_tokens = min(limits.max_num_tokens, sequences)
    blocks = default_range(BLOCKS, limits.max_seq_len)
    per_block = options.tokens_per_block
    found = [
        DynamicDimension(TOKENS, 1, typical_tokens, limits.max_num_tokens),
        default_range(LAST_TOKENS, sequences),
        default_range(SEQUENCES, sequences),
        default_range(CACHE_SEQUENCES, limits.max_batch_size),
        DynamicDimension(BEAMS, 1, 1, MAX_BEAM_WIDTH),
        default_range(POSITIONS, limits.max_seq_len),
        DynamicDimension(BLOCKS, *(-(-size // per_block) for size in (blocks.min, blocks.opt, blocks.max))),
    ]
    rows = limits.max_prompt_embedding_table_size
    if rows:
        found.append(DynamicDimension(PROMPT_ROWS, 1, max(1, rows // 2), rows))
    return {dimension.name: dimension for dimension in found}


def attention_specs(layers: int, trtllm: Version) -> dict[str, Spec]:
    """Inputs of attention with packed tokens and a paged cache, by name and in order.

    Source: contract 2.1 and 9.
    """
    sequences = symbol(SEQUENCES)
    pools = symbol(POOLS) if trtllm.maps_places else 1

    def ints(*shape: Dim) -> Spec:
        return Spec(tuple(shape), torch.int32)

    def longs(*shape: Dim) -> Spec:
        return Spec(tuple(shape), torch.int64)

    offsets = ints(pools, sequences, 2, symbol(BLOCKS))
    return {
        "sequence_length": ints(sequences),
        "host_request_types": ints(sequences),
        "host_past_key_value_lengths": ints(sequences),
        "context_lengths": ints(sequences),
        "host_runtime_perf_knobs": longs(16),
        "host_context_progress": longs(1),
        "host_context_lengths": ints(sequences),
        "host_max_attention_window_sizes": ints(layers),
        "host_sink_token_length": ints(1),
        "cache_indirection": ints(symbol(CACHE_SEQUENCES), symbol(BEAMS), symbol(POSITIONS)),
        "kv_cache_block_offsets": offsets,
        "host_kv_cache_block_offsets": offsets,
        "host_kv_cache_pool_pointers": longs(pools, 2),
        "host_kv_cache_pool_mapping": ints(layers, 2) if trtllm.maps_places else ints(layers),
    }
