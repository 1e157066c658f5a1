"""config.json's decoder_config are those of Hugging Face's configuration."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers import Gemma2Config, LlamaConfig, Phi3Config, Qwen2Config, Qwen3Config

from ditto import LlmBuilder
from ditto.builders.decoder_config import (
    attention_layers,
    image_token_id,
    read_decoder_config,
    refuse_bidirectional,
    rope_parameters,
)
from ditto.errors import CheckpointError, UnsupportedFeature
from ditto.targets import target
from tests.support.describing import engines_of
from tests.support.models import GEMMA2, LLAMA3_ROPE, TEXT, TRANSFORMERS_5, llama, llava, rope


def test_a_llama_is_described_by_its_configuration():
    decoder_config = read_decoder_config(LlamaConfig(**TEXT, **rope(), rms_norm_eps=3e-6, hidden_act="gelu"), 128)
    assert (decoder_config.architecture, decoder_config.hidden_size, decoder_config.head_size) == (
        "LlamaForCausalLM",
        64,
        16,
    )
    assert (decoder_config.num_attention_heads, decoder_config.num_key_value_heads) == (4, 2)
    assert (decoder_config.hidden_act, decoder_config.norm_epsilon, decoder_config.rotary_embedding_dim) == (
        "gelu",
        3e-6,
        16,
    )
    assert decoder_config.extra == {"rotary_base": 10000.0, "rotary_scaling": None}


def test_rope_scaling_is_stated_with_its_kind():
    decoder_config = read_decoder_config(LlamaConfig(**TEXT, **LLAMA3_ROPE), 128)
    assert decoder_config.extra["rotary_scaling"] == {
        "type": "llama3",
        "factor": 4.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    }


def test_partial_rotary_embedding_is_stated():
    partial = {"partial_rotary_factor": 0.5}
    config = Phi3Config(**TEXT, **rope(), **partial)
    assert read_decoder_config(config, 128).rotary_embedding_dim == 8


def test_norms_of_queries_and_keys_are_stated():
    assert read_decoder_config(Qwen3Config(**TEXT, head_dim=32, **rope()), 128).qk_layernorm
    assert read_decoder_config(Qwen3Config(**TEXT, head_dim=32, **rope()), 128).head_size == 32


def test_rope_is_known_under_either_transformers_names():
    assert rope_parameters(LlamaConfig(**TEXT, **rope()))["rope_theta"] == 10000.0


@pytest.mark.parametrize("name", ["trtllm", "tensorrt-rtx"])
def test_heads_that_cannot_share_are_refused(name):
    model = llama(num_key_value_heads=3)
    with pytest.raises(RuntimeError):  # nor can Hugging Face
        model(torch.tensor([[5, 6]]))
    told = "num_attention_heads 4 is not a multiple of num_key_value_heads 3"
    with pytest.raises(CheckpointError, match=told) as caught:
        engines_of(LlmBuilder.from_model(model), target(name))
    assert caught.value.where == "LlamaForCausalLM"


def test_heads_of_odd_width_are_refused():
    config = LlamaConfig(**TEXT, **rope())
    config.head_dim = 7  # transformers 5 refuses it itself
    with pytest.raises(CheckpointError, match="heads are 7 wide, and rotary embedding turns pairs of columns"):
        read_decoder_config(config, 128)


def test_keys_that_some_architectures_demand():
    qwen = read_decoder_config(Qwen2Config(**TEXT, **rope()), 128)
    gemma = read_decoder_config(Gemma2Config(**TEXT, **GEMMA2, **rope()), 128)
    assert (qwen.extra["qwen_type"], gemma.extra["query_pre_attn_scalar"]) == ("qwen2", 24)
    assert qwen.extra["seq_length"] == 8192
    assert read_decoder_config(Qwen2Config(**TEXT, **rope(), seq_length=99), 128).extra["seq_length"] == 99
    caps = ("attn_logit_softcapping", "final_logit_softcapping")
    assert {name: gemma.extra[name] for name in caps} == {name: GEMMA2[name] for name in caps}
    uncapped = read_decoder_config(Gemma2Config(**TEXT, **{**GEMMA2, **dict.fromkeys(caps)}, **rope()), 128)
    assert {name: uncapped.extra[name] for name in caps} == dict.fromkeys(caps)


def test_the_image_token_is_known_by_either_name():
    assert image_token_id(llava(image_token_index=40).config) == 40
    assert image_token_id(SimpleNamespace(image_token_index=None, image_token_id=7)) == 7
    assert image_token_id(LlamaConfig(**TEXT)) is None


class _Varied(SimpleNamespace):
    """As transformers 5 has it where the configurations of layers say different things."""

    per_layer_config = (SimpleNamespace(head_dim=16), SimpleNamespace(head_dim=32))

    def __getattr__(self, name):
        if name in ("head_dim", "hidden_act"):
            raise RuntimeError(f"'{name}' is a per-layer attribute and may vary across layers.")
        raise AttributeError(name)


def test_of_sizes_that_layers_differ_in_the_largest_counts():
    sizes = {**TEXT, "model_type": "varied"}
    assert read_decoder_config(_Varied(**sizes, hidden_activation="silu", hidden_act="silu"), 128).head_size == 32
    for name in ("intermediate_size", "num_key_value_heads"):
        config = read_decoder_config(SimpleNamespace(**{**sizes, name: [2, 4]}), 128)
        assert getattr(config, name) == 4
    with pytest.raises(CheckpointError, match="num_attention_heads 4 is not a multiple of num_key_value_heads 3"):
        read_decoder_config(SimpleNamespace(**{**sizes, "num_key_value_heads": [4, 3]}), 128)


def test_layers_that_differ_in_more_than_sizes_are_refused():
    with pytest.raises(UnsupportedFeature, match="the layers of varied differ in `hidden_act`"):
        read_decoder_config(_Varied(**TEXT, model_type="varied"), 128)


def test_a_value_for_each_layer_that_is_the_same_is_one_value():
    config = LlamaConfig(**TEXT, **rope())
    object.__setattr__(config, "intermediate_size", [96, 96])
    assert read_decoder_config(config, 128).intermediate_size == 96
    object.__setattr__(config, "intermediate_size", None)
    assert read_decoder_config(config, 128).intermediate_size == 4 * 64


@pytest.mark.parametrize("name", ["layer_types", "layers_block_type", "block_types"])
@pytest.mark.parametrize("kind", ["compressed_sparse_attention", "heavily_compressed_attention", "indexed_attention"])
def test_layers_that_keep_more_than_keys_and_values_are_refused(name, kind):
    config = SimpleNamespace(model_type="odd", **{name: ["full_attention", kind]})
    with pytest.raises(UnsupportedFeature, match=f"layer 1 of odd is of the kind `{kind}`: it keeps "):
        attention_layers(config, 2)


def test_layers_that_attend_to_an_image_alone_do_not_count():
    kinds = ["full_attention", "sliding_attention", "chunked_attention"]
    assert attention_layers(SimpleNamespace(model_type="plain", layer_types=kinds), 3) == 3
    assert attention_layers(SimpleNamespace(model_type="plain"), 3) == 3
    assert attention_layers(SimpleNamespace(model_type="crossed", cross_attention_layers=[1]), 3) == 2


@pytest.mark.skipif(TRANSFORMERS_5, reason="transformers 5 has functions for recurrences")
@pytest.mark.parametrize("kind", ["mamba", "linear_attention", "hybrid", "recurrent"])
def test_recurrences_need_transformers_5(kind):
    with pytest.raises(UnsupportedFeature, match="it keeps the state of a recurrence") as refused:
        attention_layers(SimpleNamespace(model_type="odd", layers_block_type=["attention", kind]), 2)
    assert "transformers 5" in str(refused.value)


@pytest.mark.skipif(not TRANSFORMERS_5, reason="transformers 4.51 has no functions for recurrences")
def test_convolutions_and_recurrences_do_not_attend():
    kinds = ["conv", "linear_attention", "full_attention", "hybrid"]
    assert attention_layers(SimpleNamespace(model_type="mixed", layer_types=kinds), 4) == 2
    assert attention_layers(SimpleNamespace(model_type="mixed", layer_types=kinds, layers_block_type=kinds), 4) == 2


@pytest.mark.parametrize("mode", [True, "all"])
def test_decoders_whose_tokens_see_those_behind_them_are_refused(mode):
    with pytest.raises(UnsupportedFeature, match="see those behind them"):
        refuse_bidirectional(SimpleNamespace(model_type="both_ways", use_bidirectional_attention=mode))
    for mode in (None, False, "vision"):
        refuse_bidirectional(SimpleNamespace(model_type="one_way", use_bidirectional_attention=mode))
