"""config.json holds what a native build saves (contract, LLM 1.2 to 1.4; multimodal 2.1 and 2.2)."""

from __future__ import annotations

import pytest
import torch
from attrs import evolve

from ditto.configs import Limits, TrtllmConfig
from ditto.network import Network, Node, Spec
from ditto.targets.part import DecoderConfig
from ditto.targets.trtllm.config import llm_config, plugin_config, runtime_defaults
from ditto.targets.trtllm.plugins import GPTAttention
from ditto.targets.trtllm.versions import version
from tests.support.packed import packed_text_model

# LLaVA-1.5-7B's language model for eight requests with an image each: the contract's own example.
FACTS = DecoderConfig(
    architecture="LlamaForCausalLM",
    vocab_size=32064,
    hidden_size=4096,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=32,
    head_size=128,
    intermediate_size=11008,
    hidden_act="silu",
    norm_epsilon=1e-5,
    max_position_embeddings=4096,
    position_embedding_type="rope_gpt_neox",
    rotary_embedding_dim=128,
    qk_layernorm=False,
    extra={"rotary_base": 10000.0, "rotary_scaling": None},
)
LIMITS = Limits(
    max_batch_size=8, max_input_len=1024, max_seq_len=4096, max_num_tokens=8192, max_prompt_embedding_table_size=4608
)


DEFAULT = TrtllmConfig()


def _config(options=DEFAULT, dtype="float16"):
    return llm_config(Network("llm"), FACTS, LIMITS, options, version(options.version), dtype).to_json()


def test_the_model_as_the_contract_describes_it():
    found = _config()["pretrained_config"]
    stated = {
        "architecture": "LlamaForCausalLM",
        "dtype": "float16",
        "logits_dtype": "float32",
        "vocab_size": 32064,
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "head_size": 128,
        "intermediate_size": 11008,
        "rotary_embedding_dim": 128,
        "rotary_base": 10000.0,
        "rotary_scaling": None,
        "runtime_defaults": None,
    }
    assert {key: found[key] for key in stated} == stated
    assert "moe" not in found, "a null `moe` makes the C++ reader throw next to LoRA"
    assert found["quantization"]["quant_algo"] is None and found["quantization"]["group_size"] == 128


def test_limits_as_the_contract_describes_them():
    found = _config()
    stated = {
        "max_input_len": 1024,
        "max_seq_len": 4096,
        "max_batch_size": 8,
        "max_beam_width": 1,
        "max_num_tokens": 8192,
        "opt_num_tokens": 8,
        "max_prompt_embedding_table_size": 4608,
        "kv_cache_type": "PAGED",
        "speculative_decoding_mode": 1,
        "strongly_typed": True,
        "output_timing_cache": "model.cache",
    }
    assert {key: found["build_config"][key] for key in stated} == stated
    assert "logits_dtype" not in found["build_config"]
    assert found["version"] == "0.19.0"


def test_plugins_as_a_native_build_leaves_them():
    found = _config()["build_config"]["plugin_config"]
    stated = {
        "dtype": "float16",
        "bert_attention_plugin": "auto",
        "gpt_attention_plugin": "auto",
        "gemm_plugin": "auto",
        "nccl_plugin": None,  # one GPU
        "lora_plugin": None,
        "moe_plugin": "auto",
        "mamba_conv1d_plugin": "auto",
        "smooth_quant_plugins": True,
        "context_fmha": True,
        "paged_kv_cache": True,
        "paged_state": False,  # no recurrent layers
        "remove_input_padding": True,
        "tokens_per_block": 32,
        "use_paged_context_fmha": True,
        "use_fp8_context_fmha": False,  # no FP8
        "use_fused_mlp": True,
        "reduce_fusion": False,
    }
    assert {key: found[key] for key in stated} == stated


def test_choices_show():
    options = TrtllmConfig(version="0.20.0", tokens_per_block=64, gemm_plugin=False, use_paged_context_fmha=False)
    found = _config(options)
    assert found["version"] == "0.20.0"
    plugins = found["build_config"]["plugin_config"]
    assert (plugins["tokens_per_block"], plugins["gemm_plugin"], plugins["use_paged_context_fmha"]) == (64, None, False)
    assert plugins["context_fmha"] is True


def test_float32_has_no_fused_context_attention():
    found = plugin_config(TrtllmConfig(), "float32")
    assert (found.context_fmha, found.use_paged_context_fmha) == (False, False)


@pytest.mark.parametrize(
    ("name", "windows"),
    [
        ("llama", None),
        ("mistral with a window", [5, 5]),
        ("gemma2 with soft-caps and windows", [5, 24]),
    ],
)
def test_windows_are_told_to_the_runtime(name, windows):
    limits = Limits(max_batch_size=1, max_input_len=16, max_seq_len=24, max_num_tokens=16)
    found = runtime_defaults(packed_text_model(name).network, limits)
    assert found == (None if windows is None else {"max_attention_window": windows})


def test_a_window_of_a_whole_sequence_is_none():
    limits = Limits(max_batch_size=1, max_input_len=2, max_seq_len=5, max_num_tokens=16)
    assert runtime_defaults(packed_text_model("mistral with a window").network, limits) is None


def test_a_window_reaches_no_farther_than_a_sequence():
    network = Network("llm")
    layers = [node.layer for node in packed_text_model("gemma2 with soft-caps and windows").network.nodes]
    for layer in [layer for layer in layers if isinstance(layer, GPTAttention)]:
        window = layer.window or 99
        network.append(Node(evolve(layer, window=window), (), (f"y{layer.layer_idx}",)), [Spec((1,), torch.float32)])
    limits = Limits(max_batch_size=1, max_input_len=16, max_seq_len=24, max_num_tokens=16)
    assert runtime_defaults(network, limits) == {"max_attention_window": [5, 24]}
