"""The two config.json files of a tree, in the format of TensorRT-LLM 0.19.

Every target writes them, so that all trees have one layout and one reader. Keys and defaults: contract (LLM engine)
sections 1.1 to 1.4, contract (multimodal) section 2.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from attrs import Factory, asdict, frozen
from cattrs.errors import BaseValidationError

from ditto.errors import TreeError
from ditto.files import read_json
from ditto.strict import faults_of, strict_converter


@frozen(kw_only=True)
class Mapping:
    """Parallel mapping of a model to GPUs; Ditto builds one engine for one rank."""

    world_size: int = 1
    gpus_per_node: int = 8
    cp_size: int = 1
    tp_size: int = 1
    pp_size: int = 1
    moe_tp_size: int = 1
    moe_ep_size: int = 1


@frozen(kw_only=True)
class Quantization:
    """Quantisation of weights and KV cache; Ditto uses none."""

    quant_algo: str | None = None
    kv_cache_quant_algo: str | None = None
    group_size: int = 128
    smoothquant_val: float = 0.5
    clamp_val: list[float] | None = None
    use_meta_recipe: bool = False
    has_zero_point: bool = False
    pre_quant_scale: bool = False
    exclude_modules: list[str] | None = None


@frozen(kw_only=True)
class PretrainedConfig:
    """`pretrained_config`: the model behind an engine.

    `extra` holds the keys that only some architectures have.
    """

    architecture: str
    dtype: str
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_size: int
    intermediate_size: int
    hidden_act: str
    norm_epsilon: float
    max_position_embeddings: int
    position_embedding_type: str
    rotary_embedding_dim: int
    qk_layernorm: bool = False
    logits_dtype: str = "float32"
    use_parallel_embedding: bool = False
    embedding_sharding_dim: int = 0
    runtime_defaults: dict[str, Any] | None = None
    mapping: Mapping = Factory(Mapping)
    quantization: Quantization = Factory(Quantization)
    extra: dict[str, Any] = Factory(dict)

    def to_json(self) -> dict[str, Any]:
        """As written to config.json."""
        data = asdict(self)
        extra = data.pop("extra")
        return {**data, **extra}


@frozen(kw_only=True)
class PluginConfig:
    """`plugin_config`; the defaults are those of an engine without plugins."""

    dtype: str
    bert_attention_plugin: str | None = None
    gpt_attention_plugin: str | None = None
    gemm_plugin: str | None = None
    explicitly_disable_gemm_plugin: bool = False
    gemm_swiglu_plugin: str | None = None
    fp8_rowwise_gemm_plugin: str | None = None
    qserve_gemm_plugin: str | None = None
    identity_plugin: str | None = None
    nccl_plugin: str | None = None
    lora_plugin: str | None = None
    dora_plugin: bool = False
    weight_only_groupwise_quant_matmul_plugin: str | None = None
    weight_only_quant_matmul_plugin: str | None = None
    smooth_quant_plugins: bool = False
    smooth_quant_gemm_plugin: str | None = None
    layernorm_quantization_plugin: str | None = None
    rmsnorm_quantization_plugin: str | None = None
    quantize_per_token_plugin: bool = False
    quantize_tensor_plugin: bool = False
    moe_plugin: str | None = None
    mamba_conv1d_plugin: str | None = None
    low_latency_gemm_plugin: str | None = None
    low_latency_gemm_swiglu_plugin: str | None = None
    gemm_allreduce_plugin: str | None = None
    context_fmha: bool = False
    bert_context_fmha_fp32_acc: bool = False
    paged_kv_cache: bool = False
    remove_input_padding: bool = False
    norm_quant_fusion: bool = False
    reduce_fusion: bool = False
    user_buffer: bool = False
    tokens_per_block: int = 32
    use_paged_context_fmha: bool = False
    use_fp8_context_fmha: bool = False
    fuse_fp4_quant: bool = False
    multiple_profiles: bool = False
    paged_state: bool = False
    streamingllm: bool = False
    manage_weights: bool = False
    use_fused_mlp: bool = True
    pp_reduce_scatter: bool = False


@frozen(kw_only=True)
class LoraConfig:
    """LoRA adapters; Ditto uses none."""

    lora_dir: list[str] = Factory(list)
    lora_ckpt_source: str = "hf"
    max_lora_rank: int = 64
    lora_target_modules: list[str] = Factory(list)
    trtllm_modules_to_hf_modules: dict[str, str] = Factory(dict)


@frozen(kw_only=True)
class BuildConfig:
    """`build_config`: limits and build settings of an LLM engine."""

    max_input_len: int
    max_seq_len: int
    opt_batch_size: int
    max_batch_size: int
    max_num_tokens: int
    opt_num_tokens: int
    max_prompt_embedding_table_size: int
    kv_cache_type: str
    plugin_config: PluginConfig
    max_beam_width: int = 1
    gather_context_logits: bool = False
    gather_generation_logits: bool = False
    strongly_typed: bool = True
    force_num_profiles: int | None = None
    profiling_verbosity: str = "layer_names_only"
    enable_debug_output: bool = False
    max_draft_len: int = 0
    speculative_decoding_mode: int = 1
    use_refit: bool = False
    input_timing_cache: str | None = None
    output_timing_cache: str = "model.cache"
    lora_config: LoraConfig = Factory(LoraConfig)
    weight_sparsity: bool = False
    weight_streaming: bool = False
    use_strip_plan: bool = False
    max_encoder_input_len: int = 1024
    monitor_memory: bool = False
    use_mrope: bool = False


@frozen(kw_only=True)
class LlmConfig:
    """`llm/config.json`; `version` is the TensorRT-LLM version of its format."""

    version: str
    pretrained_config: PretrainedConfig
    build_config: BuildConfig

    def to_json(self) -> dict[str, Any]:
        """As written to config.json."""
        return {
            "version": self.version,
            "pretrained_config": self.pretrained_config.to_json(),
            "build_config": asdict(self.build_config),
        }


@frozen(kw_only=True)
class VisionConfig:
    """`vision/config.json`, which holds only `builder_config`.

    Source: contract, multimodal 2.1 and 2.2.

    Args:
        output_shape: shape of `encoder_output`, with -1 for the batch.
    """

    precision: str
    model_type: str
    max_batch_size: int
    output_shape: list[int]
    tensor_parallel: int = 1
    use_refit: bool = False
    int8: bool = False
    force_num_profiles: int | None = None
    strongly_typed: bool = True
    use_strip_plan: bool = False
    model_name: str = "multiModal"
    max_beam_width: int = 1

    def to_json(self) -> dict[str, Any]:
        """As written to config.json."""
        return {"builder_config": asdict(self)}


def write_config(config: LlmConfig | VisionConfig, directory: Path) -> None:
    """Write `directory`/config.json."""
    (directory / "config.json").write_text(json.dumps(config.to_json(), indent=4) + "\n", encoding="utf-8")


def read_config(directory: Path) -> dict[str, Any]:
    """Read `directory`/config.json.

    Raises:
        TreeError: it is missing or not a JSON object.
    """
    path = directory / "config.json"
    try:
        data = read_json(path)
    except (OSError, ValueError) as error:
        raise TreeError(f"cannot read config.json: {error}", where=str(path), remedy="build the tree again") from error
    fault = _fault(data)
    if fault:
        raise TreeError(f"config.json is damaged: {fault}", where=str(path), remedy="build the tree again")
    return data


# Minimum values of the numbers that the reference session of packed engines reads, by section of config.json.
_LEAST: dict[str, dict[str, int]] = {
    "builder_config": {},
    "build_config": {"max_batch_size": 1, "max_seq_len": 1, "max_prompt_embedding_table_size": 0},
    "pretrained_config": {"vocab_size": 1, "hidden_size": 1},
}
_CONVERTER = strict_converter(known_keys_only=False)


def _fault(data: Any) -> str:
    """Describe the first fault in a config.json; empty if there is none."""
    if not isinstance(data, dict):
        return "it is not a JSON object"
    wanted = ["builder_config"] if "builder_config" in data else ["build_config", "pretrained_config"]
    for part in wanted:
        if not isinstance(data.get(part), dict):
            return f"it has no object {part}"
        for name, least in _LEAST[part].items():
            value = data[part].get(name)
            if type(value) is not int or not least <= value < 2**31:
                return f"{name} is not a number of at least {least}"
    return "" if "builder_config" in wanted else _model_fault(data["pretrained_config"])


def _model_fault(data: dict[str, Any]) -> str:
    try:
        model = _CONVERTER.structure({"runtime_defaults": None, **data}, PretrainedConfig)
    except BaseValidationError as error:
        return faults_of(error)
    if model.dtype not in ("float32", "float16", "bfloat16"):
        return f"dtype {model.dtype!r} is not one that engines compute in"
    windows = (model.runtime_defaults or {}).get("max_attention_window") or [1]
    if not isinstance(windows, list) or not all(type(size) is int and size > 0 for size in windows):
        return "max_attention_window is not a list of sizes"
    return "" if "runtime_defaults" in data else "runtime_defaults is missing"
