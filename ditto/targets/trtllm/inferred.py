"""Facts about TensorRT-LLM that the contract infers without a source.

They are kept in one place, so that they can be checked quickly on a machine with TensorRT-LLM. `ditto doctor --trtllm`
compares automatically where possible, and prints the rest for a manual check.
"""

from __future__ import annotations

from attrs import frozen

# Half-blocks per block and layer: one of keys and one of values (contract, LLM 4.5).
HALF_BLOCKS = 2

# Dtypes with fused context attention; for others a build disables it, and paged context attention as well.
FUSED_CONTEXT_DTYPES = ("float16", "bfloat16")

# Kinds of rope scaling that the plugin computes (contract, LLM 4.4).
ROPE_IN_PLUGIN = ("default", "linear", "llama3")

# Versions whose runtime keeps layers of different windows in different pools (contract, LLM 9).
POOL_PER_WINDOW = ("0.20.0", "0.21.0", "1.0.0", "1.1.0", "1.2.0")


# Model types whose tiles the multimodal runner arranges by (height, width) as if it were (width, height).
TRANSPOSED_TYPES = ("llava_next",)


@frozen
class Deduction:
    """An inferred fact, its section in the contract, and where to check it."""

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
        "llama3 smooths its frequencies in float64, from float32 to float32: NumPy 1 computes with single numbers so",
        "LLM 4.4, 9",
        "apply_llama3_scaling in tensorrt_llm/functional.py, and the version of NumPy",
    ),
    Deduction(
        "0.18 finds a layer's keys and values by its pool, host_kv_cache_pool_mapping, and its place in the pool, the "
        "plugin's field layer_idx_in_cache_pool",
        "LLM 3.1, 9",
        "gptAttentionPlugin.cpp",
    ),
    Deduction(
        "from 0.20 on the runtime keeps layers of different windows in different pools",
        "LLM 9",
        "cpp/tensorrt_llm/batch_manager/kvCacheManager.cpp",
    ),
)
