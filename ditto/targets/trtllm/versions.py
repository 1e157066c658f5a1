"""Table of the supported TensorRT-LLM versions and their differences.

0.19.0 follows its source text; the others follow from the differences that the contract lists.

Source: contract, LLM engine 3.1, 3.13, 7.
"""

from __future__ import annotations

from attrs import frozen

from ditto.errors import ConfigError
from ditto.network.plugin import FieldType

DEFAULT = "0.19.0"

Fields = tuple[tuple[str, FieldType], ...]

# Fields of GPTAttention in the order of 0.19.0 (contract 3.1).
_GPT_ATTENTION: Fields = (
    ("layer_idx", "int32"),
    ("num_heads", "int32"),
    ("vision_start", "int32"),
    ("vision_length", "int32"),
    ("num_kv_heads", "int32"),
    ("num_kv_heads_origin", "int32"),
    ("head_size", "int32"),
    ("unidirectional", "int32"),
    ("q_scaling", "float32"),
    ("attn_logit_softcapping_scale", "float32"),
    ("position_embedding_type", "int8"),
    ("rotary_embedding_dim", "int32"),
    ("rotary_embedding_base", "float32"),
    ("rotary_embedding_scale_type", "int8"),
    ("rotary_embedding_scale", "float32"),
    ("rotary_embedding_short_m_scale", "float32"),
    ("rotary_embedding_long_m_scale", "float32"),
    ("rotary_embedding_max_positions", "int32"),
    ("rotary_embedding_original_max_positions", "int32"),
    ("tp_size", "int32"),
    ("tp_rank", "int32"),
    ("unfuse_qkv_gemm", "int8"),
    ("context_fmha_type", "int8"),
    ("kv_cache_quant_mode", "int32"),
    ("remove_input_padding", "int8"),
    ("mask_type", "int32"),
    ("block_sparse_block_size", "int32"),
    ("block_sparse_homo_head_pattern", "int8"),
    ("block_sparse_num_local_blocks", "int32"),
    ("block_sparse_vertical_stride", "int32"),
    ("paged_kv_cache", "int32"),
    ("tokens_per_block", "int32"),
    ("type_id", "int32"),
    ("max_context_length", "int32"),
    ("qkv_bias_enabled", "int8"),
    ("do_cross_attention", "int8"),
    ("max_distance", "int32"),
    ("pos_shift_enabled", "int8"),
    ("dense_context_fmha", "int8"),
    ("use_paged_context_fmha", "int8"),
    ("use_fp8_context_fmha", "int8"),
    ("has_full_attention_mask", "int8"),
    ("use_cache", "int32"),
    ("is_spec_decoding_enabled", "int8"),
    ("spec_decoding_is_generation_length_variable", "int8"),
    ("spec_decoding_max_generation_length", "int32"),
    ("is_mla_enabled", "int8"),
    ("q_lora_rank", "int32"),
    ("kv_lora_rank", "int32"),
    ("qk_nope_head_dim", "int32"),
    ("qk_rope_head_dim", "int32"),
    ("v_head_dim", "int32"),
    ("fuse_fp4_quant", "int8"),
    ("skip_attn", "int8"),
    ("cp_size", "int32"),
    ("cp_rank", "int32"),
    ("cp_group", "int32"),
    ("use_logn_scaling", "int8"),
)


def _with(fields: Fields, replaced: dict[str, tuple[str, FieldType]], dropped: tuple[str, ...]) -> Fields:
    return tuple(replaced.get(name, (name, kind)) for name, kind in fields if name not in dropped)


# Fields of Gemm, the same in every version (contract 3.2).
GEMM_FIELDS: Fields = (
    ("transa", "int32"),
    ("transb", "int32"),
    ("pad_lda", "int32"),
    ("pad_ldb", "int32"),
    ("pad_ldc", "int32"),
    ("type_id", "int32"),
    ("use_fp8", "int32"),
    ("alpha", "float32"),
)


@frozen
class Version:
    """Properties of a TensorRT-LLM version.

    Args:
        name: as in `version` of llm/config.json.
        gpt_attention: fields of the attention plugin.
        vision_output: name of the vision engine's output.
        maps_places: whether `host_kv_cache_pool_mapping` [layers, 2] contains each layer's pool and its place in it,
            and the runtime chooses the number of pools; else it contains the pool only, [layers], and there is one pool
            (contract 9).
    """

    name: str
    gpt_attention: Fields
    vision_output: str
    maps_places: bool = True


# 0.18 belongs to the line of 0.17: one field has another name, and one is missing (contract 3.1, differences).
_V018 = _with(
    _GPT_ATTENTION,
    {"num_kv_heads_origin": ("layer_idx_in_cache_pool", "int32")},
    ("fuse_fp4_quant",),
)

_VERSIONS = {
    version.name: version
    for version in (
        Version("0.18.2", _V018, "output", maps_places=False),
        Version("0.19.0", _GPT_ATTENTION, "encoder_output"),
        Version("0.20.0", _GPT_ATTENTION, "encoder_output"),
        Version("0.21.0", _GPT_ATTENTION, "encoder_output"),
        Version("1.0.0", _GPT_ATTENTION, "encoder_output"),
        Version("1.1.0", _GPT_ATTENTION, "encoder_output"),
        Version("1.2.0", _GPT_ATTENTION, "encoder_output"),
    )
}
NAMES = tuple(_VERSIONS)


def version(name: str) -> Version:
    """Properties of a version by name; `0.19` and `0.19.1` stand for 0.19.0.

    Raises:
        ConfigError: Ditto does not support this version.
    """
    if name in _VERSIONS:
        return _VERSIONS[name]
    line = name.split(".")[:2]
    for known in _VERSIONS:
        if known.split(".")[:2] == line:
            return _VERSIONS[known]
    raise ConfigError(f"TensorRT-LLM {name} is not known", remedy=f"choose from {', '.join(NAMES)}")
