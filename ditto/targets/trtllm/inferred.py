"""What the contract deduces and nobody read: kept together, so that who has TensorRT-LLM can check it quickly.

`ditto doctor --trtllm` compares what a program can compare, and prints the rest for the eye.
"""

from __future__ import annotations

import torch
from attrs import frozen

# TensorRT's DataType enumeration, as plugins take it in `type_id` (contract, LLM 3.1 no. 33 and 8.5).
TYPE_ID = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 7}

# Half-blocks of a block for each layer: keys and values (contract, LLM 4.5).
HALF_BLOCKS = 2

# `max_beam_width` of vision/config.json (contract, multimodal 2.1).
VISION_MAX_BEAM_WIDTH = 1

# Dtypes whose context attention is fused; with others a build turns that off, and paged context attention with it.
FUSED_CONTEXT_DTYPES = ("float16", "bfloat16")

# Kinds of rope scaling that are left to the plugin (contract, LLM 4.4).
ROPE_IN_PLUGIN = ("default", "linear", "llama3")

# Versions whose runtime does not read windows from `runtime_defaults` (contract, LLM 3.13: 0.18 has 0.17's content).
WITHOUT_RUNTIME_DEFAULTS = ("0.18.2",)


@frozen
class Deduction:
    """A fact that was deduced, where the contract has it, and where an installation shows it."""

    fact: str
    section: str
    check: str


DEDUCTIONS = (
    Deduction(
        "a block offset counts half-blocks of the whole pool: block * layers * 2 + (0 keys, 1 values)",
        "LLM 4.5",
        "KVBlockArray in cpp/tensorrt_llm/kernels/kvCacheUtils.h",
    ),
    Deduction(
        "soft-capping comes after scaling and before the mask; softmax is computed in float32",
        "LLM 4.3",
        "the attention kernels, attn_logit_softcapping_scale",
    ),
    Deduction("query head h reads KV head h // (heads // kv_heads)", "LLM 4.1", "the attention kernels"),
    Deduction(
        "attention in float32 is not fused, and then does not read the paged cache for prompts",
        "LLM 1.2",
        "the warning `Fall back to unfused MHA because of unsupported data type`",
    ),
    Deduction(
        "dynamic, yarn and longrope scaling by the plugin is not what models compute: their rope stays in the graph",
        "LLM 4.4",
        "RopeEmbeddingUtils in tensorrt_llm/functional.py",
    ),
    Deduction(
        "an input that no layer reads (position_ids where the plugin rotates) stays an input of the engine",
        "LLM 2.1",
        "trtexec --loadEngine=rank0.engine --dumpLayerInfo",
    ),
    Deduction(
        "host_* inputs are plain tensors whose memory the runtime gives on the host",
        "LLM 2.0",
        "tensorrt_llm/models/generation_mixin.py",
    ),
    Deduction(
        "max_beam_width 1 in vision/config.json is harmless in 0.19 and needed after PR 5165",
        "multimodal 2.1",
        "gptJsonConfig.cpp",
    ),
    Deduction("a strongly typed vision engine serves as well as a weakly typed one", "multimodal 4", "run.py"),
    Deduction("0.18 does not read runtime_defaults", "LLM 3.13", "tensorrt_llm/models/modeling_utils.py"),
)
