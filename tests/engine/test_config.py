"""config.json has TensorRT-LLM 0.19's form (contract: LLM engine 1.1 to 1.4, multimodal 2.1 and 2.2)."""

from __future__ import annotations

import json

import pytest

from ditto.engine.config import read_config
from ditto.errors import TreeError

# What the C++ reader demands without a default (contract 1.1).
DEMANDED = {
    "pretrained_config": (
        "architecture",
        "dtype",
        "num_hidden_layers",
        "num_attention_heads",
        "vocab_size",
        "hidden_size",
        "quantization",
    ),
    "build_config": (
        "max_batch_size",
        "max_beam_width",
        "max_input_len",
        "max_seq_len",
        "max_num_tokens",
        "lora_config",
    ),
}
DEMANDED_PLUGINS = (
    "gpt_attention_plugin",
    "remove_input_padding",
    "paged_kv_cache",
    "tokens_per_block",
    "context_fmha",
    "use_paged_context_fmha",
    "lora_plugin",
)


def test_the_llm_config_has_what_readers_demand(llava_tree):
    config = llava_tree.config("llm")
    assert list(config) == ["version", "pretrained_config", "build_config"]
    for part, keys in DEMANDED.items():
        assert set(keys) <= set(config[part])
    plugins = config["build_config"]["plugin_config"]
    assert set(DEMANDED_PLUGINS) <= set(plugins)
    assert isinstance(config["pretrained_config"]["mapping"]["tp_size"], int)
    assert "extra" not in config["pretrained_config"]


def test_the_llm_config_avoids_the_known_traps(llava_tree):
    config = llava_tree.config("llm")
    assert config["version"] != "none"
    assert config["pretrained_config"]["logits_dtype"] == "float32"
    assert "logits_dtype" not in config["build_config"]
    assert "moe" not in config["pretrained_config"]
    assert config["build_config"]["plugin_config"]["paged_kv_cache"] is False  # a bool, never null


def test_an_engine_without_plugins_says_so(llava_tree):
    plugins = llava_tree.config("llm")["build_config"]["plugin_config"]
    assert {value for name, value in plugins.items() if name.endswith("_plugin")} <= {None, False}


def test_the_llm_config_states_the_model(llava_tree):
    stated = llava_tree.config("llm")["pretrained_config"]
    wanted = {
        "architecture": "LlamaForCausalLM",
        "dtype": "float32",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_size": 16,
        "intermediate_size": 96,
        "vocab_size": 128,
        "rotary_base": 10000.0,
        "rotary_scaling": None,
    }
    assert {name: stated[name] for name in wanted} == wanted


def test_the_vision_config_is_a_builder_config_and_nothing_else(llava_tree):
    config = llava_tree.config("vision")
    assert list(config) == ["builder_config"]
    wanted = {
        "precision": "float32",
        "model_type": "llava",
        "model_name": "multiModal",
        "max_batch_size": 2,
        "tensor_parallel": 1,
        "output_shape": [-1, 16, 64],
        "max_beam_width": 1,
    }
    assert {name: config["builder_config"][name] for name in wanted} == wanted


def test_the_prompt_table_fits_the_batch(llava_tree):
    build = llava_tree.config("llm")["build_config"]
    rows = llava_tree.config("vision")["builder_config"]["output_shape"][1]
    assert build["max_prompt_embedding_table_size"] // build["max_batch_size"] >= rows


@pytest.mark.parametrize("text", [None, "{", "[]"])
def test_a_damaged_config_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(TreeError, match=r"config\.json"):
        read_config(tmp_path)


def test_numbers_are_numbers(llava_tree):
    text = (llava_tree.root / "vision" / "config.json").read_text()
    assert json.loads(text)["builder_config"]["max_batch_size"] == 2
    assert '"2"' not in text
