"""config.json's facts are those of Hugging Face's configuration."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers import Gemma2Config, LlamaConfig, Phi3Config, Qwen2Config, Qwen3Config

from ditto import LlmBuilder
from ditto.builders.facts import image_token_id, llm_facts, rope_parameters
from ditto.errors import CheckpointError
from ditto.targets import target
from tests.support.models import GEMMA2, LLAMA3_ROPE, TEXT, llama, llava, rope


def test_a_llama_is_described_by_its_configuration():
    facts = llm_facts(LlamaConfig(**TEXT, **rope(), rms_norm_eps=3e-6, hidden_act="gelu"), 128)
    assert (facts.architecture, facts.hidden_size, facts.head_size) == ("LlamaForCausalLM", 64, 16)
    assert (facts.num_attention_heads, facts.num_key_value_heads) == (4, 2)
    assert (facts.hidden_act, facts.norm_epsilon, facts.rotary_embedding_dim) == ("gelu", 3e-6, 16)
    assert facts.extra == {"rotary_base": 10000.0, "rotary_scaling": None}


def test_rope_scaling_is_stated_with_its_kind():
    facts = llm_facts(LlamaConfig(**TEXT, **LLAMA3_ROPE), 128)
    assert facts.extra["rotary_scaling"] == {
        "type": "llama3",
        "factor": 4.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    }


def test_partial_rotary_embedding_is_stated():
    partial = {"partial_rotary_factor": 0.5}
    config = Phi3Config(**TEXT, **rope(), **partial)
    assert llm_facts(config, 128).rotary_embedding_dim == 8


def test_norms_of_queries_and_keys_are_stated():
    assert llm_facts(Qwen3Config(**TEXT, head_dim=32, **rope()), 128).qk_layernorm
    assert llm_facts(Qwen3Config(**TEXT, head_dim=32, **rope()), 128).head_size == 32


def test_rope_is_known_under_either_transformers_names():
    assert rope_parameters(LlamaConfig(**TEXT, **rope()))["rope_theta"] == 10000.0


@pytest.mark.parametrize("name", ["trtllm", "tensorrt-rtx"])
def test_heads_that_cannot_share_are_refused(name):
    model = llama(num_key_value_heads=3)
    with pytest.raises(RuntimeError):  # nor can Hugging Face
        model(torch.tensor([[5, 6]]))
    told = "num_attention_heads 4 is no multiple of num_key_value_heads 3"
    with pytest.raises(CheckpointError, match=told) as caught:
        LlmBuilder.from_model(model).described(target(name))
    assert caught.value.where == "LlamaForCausalLM"


def test_heads_of_odd_width_are_refused():
    config = LlamaConfig(**TEXT, **rope())
    config.head_dim = 7  # transformers 5 refuses it itself
    with pytest.raises(CheckpointError, match="heads are 7 wide, and rotary embedding turns pairs of columns"):
        llm_facts(config, 128)


def test_keys_that_some_architectures_demand():
    qwen = llm_facts(Qwen2Config(**TEXT, **rope()), 128)
    gemma = llm_facts(Gemma2Config(**TEXT, **GEMMA2, **rope()), 128)
    assert (qwen.extra["qwen_type"], gemma.extra["query_pre_attn_scalar"]) == ("qwen2", 24)
    assert qwen.extra["seq_length"] == 8192
    assert llm_facts(Qwen2Config(**TEXT, **rope(), seq_length=99), 128).extra["seq_length"] == 99
    caps = ("attn_logit_softcapping", "final_logit_softcapping")
    assert {name: gemma.extra[name] for name in caps} == {name: GEMMA2[name] for name in caps}
    uncapped = llm_facts(Gemma2Config(**TEXT, **{**GEMMA2, **dict.fromkeys(caps)}, **rope()), 128)
    assert {name: uncapped.extra[name] for name in caps} == dict.fromkeys(caps)


def test_the_image_token_is_known_by_either_name():
    assert image_token_id(llava(image_token_index=40).config) == 40
    assert image_token_id(SimpleNamespace(image_token_index=None, image_token_id=7)) == 7
    assert image_token_id(LlamaConfig(**TEXT)) is None
