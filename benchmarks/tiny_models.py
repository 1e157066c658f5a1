"""Tiny random models of every causal class of transformers, for the coverage sweep and its tests.

A tiny configuration is the type's default one, shrunk by the names of its keys, with the edits of `_EDITS` for what
names alone do not say. Nothing is downloaded.
"""

from __future__ import annotations

import copy
import inspect
import re
import sys
from collections.abc import Callable
from typing import Any

import torch
import transformers
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

HIDDEN, INNER, HEADS, KV_HEADS, HEAD_SIZE, VOCABULARY, WINDOW = 128, 192, 4, 2, 32, 512, 8

_LAYERS = (
    "num_hidden_layers",
    "n_layer",
    "n_layers",
    "num_layers",
    "encoder_layers",
    "decoder_layers",
    "depth",
    "layers",
    "num_encoder_layers",
    "num_decoder_layers",
    "num_blocks",
    "conf_num_hidden_layers",
    "num_global_layers",
    "num_layers_per_stack",
)
_PATTERNS: tuple[tuple[re.Pattern[str], Callable[[int], int]], ...] = (
    (
        re.compile(
            r"^(hidden_size|d_model|n_embd|embed_dim|embedding_dim|emb_dim|dim|encoder_hidden_size|hidden_dim|"
            r"decoder_hidden_size|word_embed_proj_dim|embedding_size|input_embedding_size|output_embedding_size|"
            r"attention_hidden_size|lru_width|n_embed|hidden_size_global|ple_embed_dim|backbone_hidden_size|"
            r"out_hidden_size|output_dim|projection_dim|text_hidden_size|vision_hidden_size|audio_hidden_size)$"
        ),
        lambda value: HIDDEN,
    ),
    (
        re.compile(
            r"(intermediate_size|ffn_dim|^d_ff$|mlp_dim|^n_inner$|ffn_hidden_size|feed_forward_size|^dff$|^dim_ff$|"
            r"share_expert_dim|moe_hidden_size)"
        ),
        lambda value: INNER if value > 0 else value,
    ),
    (
        re.compile(
            r"^(num_attention_heads|n_head|n_heads|num_heads|encoder_attention_heads|decoder_attention_heads|"
            r"attention_heads|num_encoder_attention_heads|num_decoder_attention_heads|swa_num_attention_heads|"
            r"num_sliding_attention_heads|linear_num_heads|index_n_heads|linear_num_value_heads)$"
        ),
        lambda value: HEADS if value > 1 else value,
    ),
    (
        re.compile(
            r"^(head_dim|qk_nope_head_dim|v_head_dim|d_kv|d_head|dim_head|kv_channels|swa_head_dim|index_head_dim|"
            r"linear_key_head_dim|linear_value_head_dim|linear_head_dim|attention_head_dim|global_head_dim|"
            r"swa_v_head_dim|mamba_d_head|mamba_head_dim|mamba_headdim|attention_head_size)$"
        ),
        lambda value: HEAD_SIZE if value > 0 else value,
    ),
    (
        re.compile(r"^(num_experts|n_routed_experts|num_local_experts|moe_num_experts)$"),
        lambda value: 8 if value > 0 else value,
    ),
    (
        re.compile(
            r"^(num_experts_per_tok|moe_topk|moe_k|num_experts_per_token|moe_top_k|top_k_experts|n_group|"
            r"num_expert_group)$"
        ),
        lambda value: min(value, 2),
    ),
    (
        re.compile(r"^(n_shared_experts|num_shared_experts|moe_num_shared_experts|topk_group|first_k_dense_replace)$"),
        lambda value: min(value, 1),
    ),
    (
        re.compile(
            r"^(sliding_window|attention_chunk_size|sliding_window_size|attention_window_size|local_attention|"
            r"keep_window_size|local_attention_window_len)$"
        ),
        lambda value: WINDOW,
    ),
)
_KV_HEADS = re.compile(r"^(num_key_value_heads|num_kv_heads|kv_n_heads|swa_num_key_value_heads|linear_num_key_heads)$")
_ALL_HEADS = _PATTERNS[2][0]
_AT_MOST = {
    "qk_rope_head_dim": 16,
    "kv_lora_rank": 32,
    "q_lora_rank": 48,
    "o_lora_rank": 32,
    "o_groups": 2,
    "index_topk": 8,
    "state_size": 16,
    "mamba_d_state": 16,
    "ssm_state_size": 16,
    "time_step_rank": 8,
    "mamba_dt_rank": 8,
    "mamba_chunk_size": 8,
    "mamba_n_heads": 8,
    "mamba_num_heads": 8,
    "n_mamba_heads": 8,
    "mamba_d_ssm": 256,
    "n_groups": 2,
    "mamba_n_groups": 2,
    "mamba_ngroups": 2,
    "rotary_dim": 16,
    "laurel_rank": 8,
    "hidden_size_per_layer_input": 16,
    "adapter_rank": 8,
    "gated_norm_rank": 8,
    "hc_lowrank": 16,
    "router_hidden_size": 32,
    "d_rel": 8,
    "rel_extent": 16,
    "expert_ffn_hidden_size": 64,
    "moe_intermediate_size": 64,
    "zero_expert_num": 4,
    "context_length": 64,
    "encoder_hash_byte_group_vocab": 64,
    "num_codebooks": 2,
    "audio_vocab_size": 64,
    "alibi_bias_max": 8,
    "ngram_vocab_size_base": 500,
    "split_ngram_parts": 4,
    "prompt_length": 4,
    "num_centroids": 16,
    "centroid_intermediate_top_k": 4,
    "pronunciation_embed_dim": 32,
    "shape_embed_dim": 32,
    "block_multiple_of": 32,
    "index_block_size": 4,
    "index_topk_blocks": 2,
    "index_kpool": 4,
    "mem_len": 64,
    "vocab_size": VOCABULARY,
    "vocab_size_per_layer_input": VOCABULARY,
    "decoder_vocab_size": VOCABULARY,
    "additional_vocab_size": 16,
    "num_local_layers": 2,
    "_sliding_window_pattern": 2,
    "sliding_window_pattern": 2,
    "global_attn_every_n_layers": 2,
    "num_query_groups": HEADS,
    "max_position_embeddings": 4096,
}
_TOKEN_ID = re.compile(r"(_token_id|_token_index|_token_ids|^unk_index|^mask_index)$")


def causal_types() -> list[str]:
    """The model types that the installed transformers has a causal class for."""
    return list(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def causal_class(model_type: str) -> Any:
    """The causal class of a model type."""
    return getattr(transformers, modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type])


def tiny_config(model_type: str) -> Any:
    """The type's default configuration, shrunk."""
    cls = _config_class(model_type)
    values = copy.deepcopy((_BASES[model_type](cls) if model_type in _BASES else cls()).to_dict())
    for key in ("transformers_version", "dtype", "torch_dtype", "_name_or_path"):
        values.pop(key, None)
    _shrink(values)
    _renumber_tokens(values, {})
    _fit_sections(values, inspect.getsource(sys.modules[causal_class(model_type).__module__]))
    if values.get("is_decoder") is False and not values.get("is_encoder_decoder"):
        values["is_decoder"] = True
    _EDITS.get(model_type, lambda values: None)(values)
    values.pop("model_type", None)
    return cls(**values)


def tiny_model(model_type: str, seed: int = 0, edit: Callable[[Any], Any] = lambda config: config) -> Any:
    """A tiny random model of a type (CPU, float32).

    Args:
        edit: returns the configuration to use, given the tiny one.
    """
    torch.manual_seed(seed)
    model = causal_class(model_type)(edit(tiny_config(model_type))).eval().float()
    _draw_weights(model, seed)
    return model.requires_grad_(False)


def _config_class(model_type: str) -> Any:
    """The type's own configuration class; the model class's if the type's is a composite one."""
    cls = causal_class(model_type)
    try:
        own = CONFIG_MAPPING[model_type]
    except KeyError:  # a text model that has no configuration of its own
        own = None
    return cls.config_class if own is None or not issubclass(own, cls.config_class) else own


def _shrink(values: dict[str, Any]) -> None:
    """Shrink a configuration's values in place, nested configurations included."""
    layers = next((values[key] for key in _LAYERS if type(values.get(key)) is int), None)
    count = 2
    by_layer = [key for key, value in values.items() if layers and layers > 3 and _has_entry_per_layer(value, layers)]
    for key in by_layer:
        if list(values[key]) != list(range(layers or 0)) and not isinstance(values[key][0], bool):
            count = max(count, min(len(_kinds(values[key])), 4))
    rope_is_head = values.get("head_dim") is not None and values.get("head_dim") == values.get("qk_rope_head_dim")
    heads = next((value for key, value in values.items() if _ALL_HEADS.match(key) and type(value) is int), None)
    for key, value in list(values.items()):
        if key in ("id2label", "label2id"):
            del values[key]
        elif isinstance(value, dict) and key == "per_layer_config":
            _shrink_layer_configs(values, by_layer, count)
        elif isinstance(value, dict) and not key.startswith("rope_"):
            _shrink(value)
        elif isinstance(value, (list, tuple)):
            values[key] = _shrunk_list(key, value, key in by_layer, layers, count)
        elif type(value) is int:
            values[key] = _shrunk(key, value, heads, count)
    if isinstance(values.get("qk_head_dim"), int):
        values["qk_head_dim"] = (values.get("qk_nope_head_dim") or 0) + (values.get("qk_rope_head_dim") or 0)
    if rope_is_head:
        values["head_dim"] = values["qk_rope_head_dim"]


def _shrunk(key: str, value: int, heads: int | None, count: int) -> int:
    if key in _LAYERS:
        return count if value > 0 else value
    if key in _AT_MOST:
        return min(value, _AT_MOST[key]) if value > 0 else value
    if _KV_HEADS.match(key):
        return value if value <= 1 else HEADS if value == heads else KV_HEADS
    for pattern, size in _PATTERNS:
        if pattern.search(key):
            return size(value)
    if key == "max_window_layers":
        return count
    if key == "moe_layer_end_index":
        return count - 1
    return min(value, 64) if key.endswith("vocab_size") else value


def _shrunk_list(key: str, value: Any, by_layer: bool, layers: int | None, count: int) -> Any:
    if by_layer:
        if list(value) == list(range(layers or 0)):
            return list(range(count))
        kinds = _kinds(value)[:count]
        last_repeats = isinstance(kinds[-1], str) and key.startswith("mlp")
        rest = [kinds[-1] if last_repeats else kinds[index % len(kinds)] for index in range(count)]
        shrunk = (kinds + rest[len(kinds) :])[:count]
        return [INNER] * count if isinstance(shrunk[0], int) and shrunk[0] > 512 else shrunk
    if key == "mlp_only_layers":
        return [index for index in value if index < count - 1]
    return value


def _shrink_layer_configs(values: dict[str, Any], by_layer: list[str], count: int) -> None:
    """Carry settings of single layers over to the layers that now stand for that kind."""
    given = values.pop("per_layer_config")
    if "layer_types" not in by_layer:
        return
    types = list(values["layer_types"])
    kinds = _kinds(types)
    first = types if len(types) == count else [types.index(kinds[index % len(kinds)]) for index in range(count)]
    sizes = {"head_dim": 2 * HEAD_SIZE, "num_attention_heads": HEADS // 2, "num_key_value_heads": HEADS // 2}
    values["per_layer_config"] = {
        index: {key: sizes.get(key, value) for key, value in given[layer].items()}
        for index, original in enumerate(first)
        for layer in given
        if str(layer) == str(original)
    }


def _has_entry_per_layer(value: Any, layers: int) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == layers and not isinstance(value[0], (dict, list))


def _kinds(values: Any) -> list[Any]:
    return list(dict.fromkeys(values))


def _renumber_tokens(values: dict[str, Any], known: dict[int, int]) -> None:
    """Move special tokens into the tiny vocabulary; equal ids stay equal."""

    def moved(token: int) -> int:
        return token if token < 4 else known.setdefault(token, VOCABULARY - 8 - len(known))

    for key, value in values.items():
        if isinstance(value, dict):
            _renumber_tokens(value, known)
        elif isinstance(key, str) and _TOKEN_ID.search(key):
            if type(value) is int:
                values[key] = moved(value)
            elif isinstance(value, (list, tuple)) and value and all(type(token) is int for token in value):
                values[key] = [moved(token) for token in value]


def _fit_sections(values: dict[str, Any], source: str) -> None:
    """Scale the sections of multimodal rotary embedding to the tiny head size."""
    for value in values.values():
        if isinstance(value, dict) and "model_type" in value:
            _fit_sections(value, source)
    stated = values.get("rope_parameters")
    if not isinstance(stated, dict):
        return
    for rope in [stated] if "rope_type" in stated else [each for each in stated.values() if isinstance(each, dict)]:
        sections = rope.get("mrope_section") or ([16, 24, 24] if "mrope_section" in source else None)
        if sections:
            size = values.get("head_dim") or HIDDEN // HEADS
            half = int(size * rope.get("partial_rotary_factor", 1.0)) // 2
            rope["mrope_section"] = [max(1, half * section // sum(sections)) for section in sections[:-1]]
            rope["mrope_section"].append(half - sum(rope["mrope_section"]))


def _draw_weights(model: Any, seed: int) -> None:
    """Draw weights of unit gain, so that what every part computes is well above rounding."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.is_floating_point():
                continue
            last = name.rsplit(".", 1)[-1]
            drawn = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim >= 3 or (parameter.ndim == 2 and parameter.shape[-1] > 1):
                inner = parameter.shape[-1] if parameter.ndim == 2 else max(parameter.shape[-2:])
                inner = parameter[0].numel() if parameter.ndim >= 4 else inner
                parameter.copy_(drawn * min(0.5, inner**-0.5))
            elif last in ("A_log", "dt_bias", "D", "dt_proj_bias"):
                parameter.add_(drawn * 0.05)
            elif parameter.ndim <= 1:
                parameter.nan_to_num_(0.0, 0.0, 0.0).add_(drawn * (0.5 if "sink" in name else 0.05))


Edit = Callable[[dict[str, Any]], Any]
_BASES: dict[str, Callable[[Any], Any]] = {
    "gemma4_assistant": lambda cls: cls(text_config=_shared_layers("Gemma4TextConfig")),
    "gemma4": lambda cls: cls(vision_config=transformers.Gemma4VisionConfig()),
    "gemma4_unified": lambda cls: cls(vision_config=transformers.Gemma4UnifiedVisionConfig()),
}


def _shared_layers(name: str) -> Any:
    return getattr(transformers, name)(
        hidden_size_per_layer_input=0, vocab_size_per_layer_input=0, num_kv_shared_layers=30
    )


def _sets(**given: Any) -> Edit:
    return lambda values: values.update(given)


def _text(edit: Edit) -> Edit:
    """An edit of the nested text configuration, if there is one."""
    return lambda values: edit(values.get("text_config", values))


def _dots1(values: dict[str, Any]) -> None:
    values.update(n_routed_experts=8, num_experts_per_tok=2, n_shared_experts=1, n_group=1, topk_group=1)
    values.update(mlp_layer_types=None, first_k_dense_replace=1)


def _bamba(values: dict[str, Any]) -> None:
    values.update(mamba_d_head=32, mamba_n_heads=8, attn_layer_indices=[1])
    values.pop("layers_block_type", None)
    values.pop("layer_types", None)


_MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [8, 4, 4]}
_QWEN4 = _text(
    _sets(indexer_n_heads=4, indexer_kv_heads=1, indexer_head_dim=32, indexer_budget=8, indexer_compress_ratio=4)
)
_GEMMA3N = _text(
    _sets(
        num_hidden_layers=4,
        layer_types=["sliding_attention", "full_attention"] * 2,
        num_kv_shared_layers=2,
        intermediate_size=[INNER] * 4,
        activation_sparsity_pattern=[0.95, 0.0, 0.0, 0.0],
        vocab_size=VOCABULARY,
        vocab_size_per_layer_input=VOCABULARY - 64,
    )
)
_GEMMA4 = _text(
    _sets(
        num_hidden_layers=4,
        layer_types=["sliding_attention", "full_attention"] * 2,
        num_kv_shared_layers=2,
        attention_k_eq_v=True,
        use_double_wide_mlp=True,
        vocab_size_per_layer_input=VOCABULARY,
        per_layer_config={layer: {"head_dim": 2 * HEAD_SIZE, "num_key_value_heads": 1} for layer in (1, 3)},
    )
)
_DOTS3 = _text(
    _sets(
        num_hidden_layers=3,
        layer_types=["indexed_attention", "sliding_attention", "indexed_attention"],
        mlp_layer_types=["dense", "sparse", "sparse"],
        head_dim=48,
        qk_nope_head_dim=32,
        qk_rope_head_dim=16,
        index_head_dim=32,
        per_layer_config={
            1: {"num_attention_heads": 2, "num_key_value_heads": 2, "kv_lora_rank": 48, "qk_nope_head_dim": 32}
        },
    )
)
_COMPASS = _text(
    _sets(
        layer_types=["sliding_attention", "full_attention"],
        rope_parameters={"sliding_attention": _MROPE, "full_attention": _MROPE},
    )
)
_ASSISTANT = _text(_sets(hidden_size_per_layer_input=0, vocab_size_per_layer_input=0, num_kv_shared_layers=2))
_EDITS: dict[str, Edit] = {
    "bamba": _bamba,
    "big_bird": _sets(attention_type="original_full"),
    "bigbird_pegasus": _sets(attention_type="original_full"),
    "cohere_compass_text": _COMPASS,
    "dbrx": _sets(
        attn_config={"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
        ffn_config={"ffn_hidden_size": 64, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": HIDDEN},
    ),
    "deepseek_v2": _sets(num_experts_per_tok=2),
    "dots1": _dots1,
    "dots3_note": _DOTS3,
    "dots3_note_text": _DOTS3,
    "falcon_h1": _sets(mamba_d_head=32, mamba_n_heads=8),
    "fuyu": _sets(patch_size=8, image_size=32),
    "gemma3n": _GEMMA3N,
    "gemma3n_text": _GEMMA3N,
    "gemma4": lambda values: (_GEMMA4(values), values.update(audio_config=None)),
    "gemma4_assistant": _ASSISTANT,
    "gemma4_text": _GEMMA4,
    "gemma4_unified": lambda values: (_GEMMA4(values), values.update(audio_config=None)),
    "gemma4_unified_assistant": _ASSISTANT,
    "gemma4_unified_text": _GEMMA4,
    "gpt_bigcode": _sets(multi_query=True),
    "gpt_neo": _sets(attention_types=[[["global", "local"], 1]], attention_layers=["global", "local"], window_size=8),
    "granitemoehybrid": _sets(
        layer_types=["linear_attention", "full_attention"],
        mamba_d_head=32,
        mamba_n_heads=8,
        num_local_experts=8,
        num_experts_per_tok=2,
    ),
    "hunyuan_v1_dense": _sets(head_dim=HEAD_SIZE),
    "hunyuan_v1_moe": _sets(head_dim=HEAD_SIZE, num_experts=8, moe_topk=2),
    "jamba": _sets(attn_layer_period=2, attn_layer_offset=1, expert_layer_period=2, expert_layer_offset=1),
    "lfm2": _sets(layer_types=["conv", "full_attention"], full_attn_idxs=[1]),
    "lfm2_moe": _sets(layer_types=["conv", "full_attention", "conv"], num_hidden_layers=3, num_dense_layers=1),
    # Sequences of one chunk; longer ones are refused.
    "llama4": _text(_sets(attention_chunk_size=64, floor_scale=4, attn_scale=0.5)),
    "llama4_text": _sets(attention_chunk_size=64, floor_scale=4, attn_scale=0.5),
    "longcat_flash": _sets(num_layers=1, num_hidden_layers=2),
    "mamba2": _sets(num_heads=8, head_dim=32, n_groups=2, chunk_size=8),
    "minimax": _sets(block_size=8),
    "ministral": _sets(head_dim=HEAD_SIZE),
    "mllama": _text(_sets(cross_attention_layers=[1], num_hidden_layers=2)),
    "nemotron": _sets(num_key_value_heads=2, head_dim=HEAD_SIZE),
    "nemotron_h": _sets(chunk_size=8, n_groups=2),
    "qwen4_exp": _QWEN4,
    "qwen4_exp_text": _QWEN4,
    "recurrent_gemma": _sets(num_hidden_layers=3, attention_window_size=WINDOW, lru_width=HIDDEN),
    "reformer": _sets(
        is_decoder=True,
        attn_layers=["local", "lsh"],
        num_hidden_layers=2,
        axial_pos_shape=[8, 8],
        axial_pos_embds_dim=[32, 96],
        local_attn_chunk_length=8,
        lsh_attn_chunk_length=8,
        num_buckets=4,
        hash_seed=0,
    ),
    "xlstm": _sets(chunk_size=8, num_blocks=2, num_hidden_layers=2, hidden_size=HIDDEN, embedding_dim=HIDDEN),
    "xmod": _sets(default_language="en_XX"),
    "zamba": _sets(
        layers_block_type=["linear_attention", "hybrid"] * 2,
        num_hidden_layers=4,
        attention_head_dim=64,
        attention_hidden_size=256,
        mamba_dt_rank=8,
    ),
    "zamba2": _sets(
        layers_block_type=["linear_attention", "hybrid"],
        hybrid_layer_ids=[1],
        chunk_size=8,
        attention_hidden_size=2 * HIDDEN,
        attention_head_dim=64,
        kv_channels=64,
        mamba_headdim=32,
        n_mamba_heads=8,
    ),
}
