"""llm/config.json, with the values that trtllm-build writes.

These include its own adjustments (contract, LLM 1.2 to 1.4).
"""

from __future__ import annotations

from typing import Any

from attrs import asdict, evolve

from ditto.configs import Limits, TrtllmConfig
from ditto.engine.config import BuildConfig, LlmConfig, PluginConfig, PretrainedConfig
from ditto.network.graph import Network
from ditto.targets.part import DecoderConfig
from ditto.targets.trtllm import inferred
from ditto.targets.trtllm.contract import MAX_BEAM_WIDTH, SEQUENCES, TOKENS, ranges
from ditto.targets.trtllm.plugins import GPTAttention
from ditto.targets.trtllm.versions import Version


def llm_config(
    network: Network, decoder_config: DecoderConfig, limits: Limits, options: TrtllmConfig, version: Version, dtype: str
) -> LlmConfig:
    """Content of llm/config.json.

    Args:
        network: the language model, whose attention layers define the windows that the runtime applies, and the sizes
            of its KV cache.
        limits: limits after adjustment.
    """
    known = ranges(limits, options)
    sizes = decoder_config
    for layer in (node.layer for node in network.nodes if isinstance(node.layer, GPTAttention)):  # all alike
        heads, kv_heads, head_size = layer.num_heads, layer.num_kv_heads, layer.head_size
        sizes = evolve(sizes, num_attention_heads=heads, num_key_value_heads=kv_heads, head_size=head_size)
    return LlmConfig(
        version=version.name,
        pretrained_config=PretrainedConfig(
            **asdict(sizes), dtype=dtype, runtime_defaults=runtime_defaults(network, limits)
        ),
        build_config=BuildConfig(
            max_input_len=limits.max_input_len,
            max_seq_len=limits.max_seq_len,
            opt_batch_size=known[SEQUENCES].opt,
            max_batch_size=limits.max_batch_size,
            max_beam_width=MAX_BEAM_WIDTH,
            max_num_tokens=limits.max_num_tokens,
            opt_num_tokens=known[TOKENS].opt,
            max_prompt_embedding_table_size=limits.max_prompt_embedding_table_size,
            kv_cache_type="PAGED",
            plugin_config=plugin_config(options, dtype),
        ),
    )


def plugin_config(options: TrtllmConfig, dtype: str) -> PluginConfig:
    """`plugin_config`: TensorRT-LLM's defaults with trtllm-build's adjustments.

    The adjustments are those for one GPU without quantisation.
    """
    fused = dtype in inferred.FUSED_CONTEXT_DTYPES
    return PluginConfig(
        dtype=dtype,
        bert_attention_plugin="auto",
        gpt_attention_plugin="auto",
        gemm_plugin="auto" if options.gemm_plugin else None,
        moe_plugin="auto",
        mamba_conv1d_plugin="auto",
        smooth_quant_plugins=True,
        context_fmha=fused,
        paged_kv_cache=True,
        remove_input_padding=True,
        tokens_per_block=options.tokens_per_block,
        use_paged_context_fmha=fused and options.use_paged_context_fmha,
    )


def runtime_defaults(network: Network, limits: Limits) -> dict[str, Any] | None:
    """Attention windows by layer, for the runtime.

    None if every token attends to all tokens before it. The engine does not contain the windows: they are an input that
    the runtime fills (contract, LLM 4.3 and 9).
    Source of the keys: TensorRT-LLM, cpp/tensorrt_llm/runtime/runtimeDefaults.cpp.
    """
    attentions = [node.layer for node in network.nodes if isinstance(node.layer, GPTAttention)]
    longest = limits.max_seq_len
    ordered = sorted(attentions, key=lambda layer: layer.layer_idx)
    windows = [min(layer.window or longest, longest) for layer in ordered]
    return None if all(window == longest for window in windows) else {"max_attention_window": windows}
