"""A small good tree, written by hand from the contract: what planted violations are planted in."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from attrs import evolve, frozen
from torch import Tensor

from ditto.network import Network, Spec, Value, symbol
from ditto.network.layers import Activation, Cast, Constant, Convolution, ElementWise, Gather, Select, Shuffle
from ditto.network.plugin import Plugin, PluginField
from ditto.network.weight import Stored
from tests.support.conformance.trees import Part, Tree

HALF, INT, LONG, FULL = torch.float16, torch.int32, torch.int64, torch.float32
LAYERS, HEADS, KV_HEADS, HEAD, HIDDEN, VOCAB, POSITIONS = 2, 4, 2, 8, 32, 40, 64
BATCH, ROWS, BLOCK, SEQUENCE, TOKENS, INPUT = 4, 6, 32, 64, 128, 48


@frozen
class Stated(Plugin):
    """A plugin that is whatever it is said to be."""

    creator: str
    layer_name: str
    version: str
    namespace: str
    stated: tuple[PluginField, ...]
    results: tuple[Spec, ...]

    def fields(self) -> tuple[PluginField, ...]:
        return self.stated

    def infer(self, *inputs: Spec) -> Spec | tuple[Spec, ...]:
        return self.results if len(self.results) > 1 else self.results[0]

    def reference(self, *inputs: Tensor) -> Tensor:
        raise NotImplementedError("a stated plugin has no meaning")

    def with_field(self, name: str, **changes: Any) -> Stated:
        """One field otherwise."""
        return evolve(self, stated=tuple(evolve(f, **changes) if f.name == name else f for f in self.stated))


_I8 = [
    "position_embedding_type",
    "rotary_embedding_scale_type",
    "unfuse_qkv_gemm",
    "context_fmha_type",
    "remove_input_padding",
    "block_sparse_homo_head_pattern",
    "qkv_bias_enabled",
    "do_cross_attention",
    "pos_shift_enabled",
    "dense_context_fmha",
    "use_paged_context_fmha",
    "use_fp8_context_fmha",
    "has_full_attention_mask",
    "is_spec_decoding_enabled",
    "spec_decoding_is_generation_length_variable",
    "is_mla_enabled",
    "fuse_fp4_quant",
    "skip_attn",
    "use_logn_scaling",
]
_F32 = [
    "q_scaling",
    "attn_logit_softcapping_scale",
    "rotary_embedding_base",
    "rotary_embedding_scale",
    "rotary_embedding_short_m_scale",
    "rotary_embedding_long_m_scale",
]


def _attention_values(layer: int, is_old: bool) -> dict[str, float]:
    """The fields of a plain Llama's attention, in trtllm's order (contract, LLM 3.1)."""
    values: dict[str, float] = {"layer_idx": layer, "num_heads": HEADS, "vision_start": -1, "vision_length": -1}
    values |= {"num_kv_heads": KV_HEADS, "num_kv_heads_origin": KV_HEADS, "head_size": HEAD, "unidirectional": 1}
    values |= {"q_scaling": 1.0, "attn_logit_softcapping_scale": 0.0, "position_embedding_type": 2}
    values |= {"rotary_embedding_dim": HEAD, "rotary_embedding_base": 10000.0, "rotary_embedding_scale_type": 0}
    values |= {"rotary_embedding_scale": 1.0, "rotary_embedding_short_m_scale": 1.0}
    values |= {"rotary_embedding_long_m_scale": 1.0, "rotary_embedding_max_positions": POSITIONS}
    values |= {"rotary_embedding_original_max_positions": 1024, "tp_size": 1, "tp_rank": 0, "unfuse_qkv_gemm": 0}
    values |= {"context_fmha_type": 1, "kv_cache_quant_mode": 0, "remove_input_padding": 1, "mask_type": 1}
    values |= {"block_sparse_block_size": 64, "block_sparse_homo_head_pattern": 0}
    values |= {"block_sparse_num_local_blocks": 16, "block_sparse_vertical_stride": 8, "paged_kv_cache": 1}
    values |= {"tokens_per_block": BLOCK, "type_id": 1, "max_context_length": INPUT, "qkv_bias_enabled": 0}
    values |= {"do_cross_attention": 0, "max_distance": 0, "pos_shift_enabled": 0, "dense_context_fmha": 0}
    values |= {"use_paged_context_fmha": 1, "use_fp8_context_fmha": 0, "has_full_attention_mask": 0, "use_cache": 1}
    values |= {"is_spec_decoding_enabled": 0, "spec_decoding_is_generation_length_variable": 0}
    values |= {"spec_decoding_max_generation_length": 1, "is_mla_enabled": 0, "q_lora_rank": 0, "kv_lora_rank": 0}
    values |= {"qk_nope_head_dim": 0, "qk_rope_head_dim": 0, "v_head_dim": 0, "fuse_fp4_quant": 0, "skip_attn": 0}
    values |= {"cp_size": 1, "cp_rank": 0, "cp_group": 0, "use_logn_scaling": 0}
    if not is_old:
        return values
    renamed = {"num_kv_heads_origin": "layer_idx_in_cache_pool"}
    values["num_kv_heads_origin"] = layer
    return {renamed.get(name, name): value for name, value in values.items() if name != "fuse_fp4_quant"}


def _stated(creator: str, layer_name: str, values: dict[str, float], result: Spec) -> Stated:
    fields = tuple(
        PluginField(name, "int8" if name in _I8 else "float32" if name in (*_F32, "alpha") else "int32", (value,))
        for name, value in values.items()
    )
    return Stated(creator, layer_name, "1", "tensorrt_llm", fields, (result,))


def attention(layer: int = 0, is_old: bool = False) -> Stated:
    """A plain Llama's attention plugin."""
    result = Spec((symbol("num_tokens"), HEADS * HEAD), HALF)
    return _stated("GPTAttention", "causal_attn", _attention_values(layer, is_old), result)


def gemm(rows: str, width: int) -> Stated:
    """A GEMM plugin in float16."""
    values = {"transa": 0, "transb": 1, "pad_lda": 0, "pad_ldb": 0, "pad_ldc": 0, "type_id": 1, "use_fp8": 0}
    return _stated("Gemm", "gemm", {**values, "alpha": 1.0}, Spec((symbol(rows), width), HALF))


def llm_inputs(is_old: bool = False) -> dict[str, Spec]:
    """The inputs with padding removal, a paged cache and a prompt table (contract, LLM 2.1, 2.2, 9)."""
    sequences, tokens, blocks = symbol("batch_size_beam_width"), symbol("num_tokens"), symbol("max_blocks_per_seq")
    pools = 1 if is_old else symbol("num_kv_cache_pools")
    offsets = Spec((pools, sequences, 2, blocks), INT)
    return {
        "input_ids": Spec((tokens,), INT),
        "position_ids": Spec((tokens,), INT),
        "last_token_ids": Spec((symbol("last_token_ids"),), INT),
        "sequence_length": Spec((sequences,), INT),
        "host_request_types": Spec((sequences,), INT),
        "host_past_key_value_lengths": Spec((sequences,), INT),
        "context_lengths": Spec((sequences,), INT),
        "host_runtime_perf_knobs": Spec((16,), LONG),
        "host_context_progress": Spec((1,), LONG),
        "host_context_lengths": Spec((sequences,), INT),
        "host_max_attention_window_sizes": Spec((LAYERS,), INT),
        "host_sink_token_length": Spec((1,), INT),
        "cache_indirection": Spec((symbol("batch_size_cache"), symbol("beam_width"), symbol("max_seq_len")), INT),
        "kv_cache_block_offsets": offsets,
        "host_kv_cache_block_offsets": offsets,
        "host_kv_cache_pool_pointers": Spec((pools, 2), LONG),
        "host_kv_cache_pool_mapping": Spec((LAYERS,) if is_old else (LAYERS, 2), INT),
        "prompt_embedding_table": Spec((symbol("prompt_rows"), HIDDEN), HALF),
        "tasks": Spec((tokens,), INT),
        "prompt_vocab_size": Spec((1,), INT),
    }


# What the attention plugin takes of them, in its order (contract, LLM 3.1: 17 inputs with qkv and rope's two).
ATTENTION_INPUTS = [
    "sequence_length",
    "host_past_key_value_lengths",
    "host_max_attention_window_sizes",
    "host_sink_token_length",
    "context_lengths",
    "cache_indirection",
    "host_request_types",
    "kv_cache_block_offsets",
    "host_kv_cache_block_offsets",
    "host_kv_cache_pool_pointers",
    "host_kv_cache_pool_mapping",
    "rotary_inv_freq",
    "rotary_cos_sin",
    "host_context_lengths",
    "host_runtime_perf_knobs",
    "host_context_progress",
]

RANGES = {
    "num_tokens": [1, 4, TOKENS],
    "last_token_ids": [1, 2, BATCH],
    "batch_size_beam_width": [1, 2, BATCH],
    "batch_size_cache": [1, 2, BATCH],
    "beam_width": [1, 1, 1],
    "max_seq_len": [1, 32, SEQUENCE],
    "max_blocks_per_seq": [1, 1, 2],
    "num_kv_cache_pools": [1, 1, LAYERS],
    "prompt_rows": [1, ROWS * BATCH // 2, ROWS * BATCH],
}
PROFILES = {"llm": RANGES}


def _ranges(is_old: bool) -> dict[str, list[int]]:
    return {name: range_ for name, range_ in RANGES.items() if not (is_old and name == "num_kv_cache_pools")}


def llm_network(is_old: bool = False) -> Network:
    """Embedding with a prompt table, attention twice, head: one of every kind of thing that rows speak of."""
    net = Network("llm")
    given = {name: net.input(name, spec) for name, spec in llm_inputs(is_old).items()}

    def weight(name: str, *shape: int) -> Value:
        return net.add(Constant(Stored(name, shape, HALF)))

    def number(value: int, *shape: int) -> Value:
        return net.add(Constant(net.literals.keep(torch.full(shape, value, dtype=INT))))

    frequencies = np.float32(1) / (10000.0 ** (np.arange(0, HEAD, 2) / HEAD)).astype(np.float32)
    angles = np.outer(np.arange(POSITIONS, dtype=np.float32), frequencies)
    tables = np.stack((np.cos(angles), np.sin(angles)), axis=-1).reshape(1, -1)
    for name, table in (("rotary_inv_freq", frequencies), ("rotary_cos_sin", tables)):
        given[name] = net.add(Constant(net.literals.keep(torch.from_numpy(table.astype(np.float32)))))
    ids = given["input_ids"]
    virtual = net.add(ElementWise("GREATER"), ids, number(VOCAB - 1, 1))
    words = net.add(Gather(0), weight("embedding", VOCAB, HIDDEN), net.add(Select(), virtual, number(0, 1), ids))
    first = net.add(ElementWise("PROD"), given["tasks"], given["prompt_vocab_size"])
    images = net.add(Gather(0), given["prompt_embedding_table"], first)
    x = net.add(Select(), net.add(Shuffle(reshape=(-1, 1)), virtual), images, words)
    for layer in range(LAYERS):
        width = (HEADS + 2 * KV_HEADS) * HEAD
        qkv = net.add(gemm("num_tokens", width), x, weight(f"qkv{layer}", width, HIDDEN))
        x = net.add(attention(layer, is_old), qkv, *(given[name] for name in ATTENTION_INPUTS))
    last = net.add(Gather(0), x, net.add(ElementWise("SUB"), given["last_token_ids"], number(1, 1)))
    head = net.add(gemm("last_token_ids", VOCAB), last, weight("head", VOCAB, HIDDEN))
    net.output("logits", net.add(Cast(FULL), head))
    return net


def vision_network(output: str = "encoder_output") -> Network:
    """A tower of one convolution: pixels [batch, 3, 6, 6] to 6 rows for each image."""
    net = Network("vision")
    pixels = net.input("input", Spec((symbol("batch"), 3, 6, 6), HALF))
    kernel = net.add(Constant(Stored("kernel", (HIDDEN, 3, 3, 2), HALF)))
    patches = net.add(Convolution((3, 2), (0, 0), (1, 1), 1), pixels, kernel)
    rows = net.add(Shuffle(reshape=(0, HIDDEN, ROWS), second=(0, 2, 1)), patches)
    net.output(output, net.add(Activation("RELU"), rows))
    return net


def llm_config(version: str) -> dict[str, Any]:
    """What every reader wants and little more (contract, LLM 1)."""
    mapping = {"world_size": 1, "gpus_per_node": 8, "cp_size": 1, "tp_size": 1, "pp_size": 1}
    pretrained = {
        "architecture": "LlamaForCausalLM",
        "dtype": "float16",
        "logits_dtype": "float32",
        "vocab_size": VOCAB,
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_size": HEAD,
        "intermediate_size": 48,
        "max_position_embeddings": POSITIONS,
        "position_embedding_type": "rope_gpt_neox",
        "rotary_embedding_dim": HEAD,
        "rotary_base": 10000.0,
        "rotary_scaling": None,
        "mapping": mapping,
        "quantization": {"quant_algo": None, "kv_cache_quant_algo": None},
    }
    plugins = {
        "dtype": "float16",
        "gpt_attention_plugin": "float16",
        "gemm_plugin": "auto",
        "nccl_plugin": None,
        "lora_plugin": None,
        "context_fmha": True,
        "paged_kv_cache": True,
        "remove_input_padding": True,
        "tokens_per_block": BLOCK,
        "use_paged_context_fmha": True,
        "use_fp8_context_fmha": False,
        "paged_state": False,
    }
    build = {
        "max_input_len": INPUT,
        "max_seq_len": SEQUENCE,
        "opt_batch_size": 2,
        "max_batch_size": BATCH,
        "max_beam_width": 1,
        "max_num_tokens": TOKENS,
        "opt_num_tokens": None,
        "max_prompt_embedding_table_size": ROWS * BATCH,
        "kv_cache_type": "PAGED",
        "lora_config": {"lora_target_modules": [], "max_lora_rank": 64},
        "plugin_config": plugins,
    }
    return {"version": version, "pretrained_config": pretrained, "build_config": build}


def vision_config() -> dict[str, Any]:
    """What every reader wants (contract, multimodal 2.1, 2.2)."""
    builder = {
        "precision": "float16",
        "model_type": "llava",
        "max_batch_size": BATCH,
        "max_beam_width": 1,
        "tensor_parallel": 1,
        "model_name": "multiModal",
        "output_shape": [-1, ROWS, HIDDEN],
    }
    return {"builder_config": builder}


def good_tree(version: str) -> Tree:
    """A tree without violations, new every time."""
    is_old = version.startswith("0.18")
    llm = Part(llm_config(version), llm_network(is_old), {"llm": _ranges(is_old)})
    output = "output" if is_old else "encoder_output"
    vision = Part(vision_config(), vision_network(output), {"vision": {"batch": [1, BATCH // 2, BATCH]}})
    return Tree({"llm": llm, "vision": vision})
