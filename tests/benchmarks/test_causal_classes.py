"""Tiny models of the causal classes equal Hugging Face, token by token: one class for each thing that is special.

`python -m benchmarks.causal_classes` tries all classes.
"""

from __future__ import annotations

import pytest
import torch

from benchmarks import causal_classes
from benchmarks.causal_classes import (
    Outcome,
    PackedEngine,
    PaddedEngines,
    answers,
    check_class,
    check_model,
    prompts_for,
)
from benchmarks.tiny_models import tiny_config, tiny_model
from ditto.errors import UnsupportedFeature
from tests.support.models import TRANSFORMERS_5

# Classes by what is special about them; the form in which it matters.
CLASSES = {
    "gpt2": "linear layers stored the other way round",
    "cohere": "interleaved rope, parallel blocks",
    "bart": "learned positions that the model counts itself",
    "pegasus": "sinusoidal positions that the model counts itself",
    "bloom": "attention written out, with a bias of each key",
    "gpt_neo": "attention written out, with windows",
    "openai-gpt": "attention written out, with a mask that is multiplied",
    **(
        {
            "gptj": "interleaved, partial rope",
            "bert": "kinds of tokens looked up by position",
            "mpt": "a bias of each distance",
            "roberta": "positions that count from the number after padding's",
            "roformer": "positions in the rope of written attention",
            "falcon": "one KV head, in place sums",
            "ernie4_5": "rope of pairs",
            "mixtral": "experts, shares that sum to 1",
            "qwen2_moe": "experts beside a shared one",
            "gpt_oss": "sinks, experts with biases, stored the other way round",
            "deepseek_v3": "groups of experts, values narrower than keys",
            "mimo_v2_flash": "sinks in windows, values narrower than keys",
            "ernie4_5_moe": "experts chosen with a bias",
            "granitemoe": "experts of a granite",
            "lfm2": "convolutions over the sequence",
            "qwen3_5_text": "a delta rule with a gate",
            "kimi_linear": "a delta rule with a gate for each row of the state",
            "mamba": "no attention, a state for each channel",
            "falcon_h1": "Mamba 2 beside attention",
            "nemotron_h": "Mamba 2, attention, experts and MLPs in layers of their own",
            "apertus": "an activation with learned parameters",
            "phimoe": "experts chosen one after the other",
            "deepseek_v2": "rope as complex numbers",
            "dbrx": "experts one below the other",
            "longcat_flash": "experts that do nothing, two attentions in a layer",
            "cohere_compass_text": "multimodal rope of each kind of layers",
            "llama4_text": "layers without rope, whose scores grow with positions",
            "diffllama": "two attentions in a layer",
            "gemma3n_text": "embeddings of each layer, states beside the hidden one",
            "gemma4_text": "layers that differ in heads, keys that are values, caches that layers share",
        }
        if TRANSFORMERS_5
        else {}
    ),
}
_NEW = ("gpt_oss", "deepseek_v3", "lfm2", "qwen3_5_text", "jamba", "gemma4_text") if TRANSFORMERS_5 else ()
SEPARATE = ("bloom", "bart", *_NEW)


@pytest.mark.drawn(14)
@pytest.mark.parametrize("model_type", CLASSES)
def test_a_class_equals_hugging_face(model_type):
    outcome = check_class(model_type)
    assert outcome.verdict == "verified", outcome


@pytest.mark.drawn(3)
@pytest.mark.parametrize("model_type", SEPARATE)
def test_prefill_and_decode_as_separate_engines_equal_hugging_face(model_type):
    outcome = check_class(model_type, "separate")
    assert outcome.verdict == "verified", outcome


@pytest.mark.parametrize("form", ["combined", "packed"])
def test_a_model_that_differs_is_wrong(form):
    model = tiny_model("llama")
    prompts = prompts_for(model)
    wanted = answers(model, prompts)
    assert check_model(model, prompts, wanted, form).verdict == "verified"
    with torch.no_grad():
        model.lm_head.weight[7] += 0.01
    outcome = check_model(model, prompts, wanted, form)
    assert outcome.verdict == "WRONG"
    assert outcome.difference > causal_classes.TOLERANCE


@pytest.mark.skipif(not TRANSFORMERS_5, reason="transformers 4.51 lacks the class")
def test_layers_that_share_keys_and_values_share_their_cache():
    engines = PaddedEngines.of(tiny_model("gemma4_text"), "separate")
    for network in (engines.prefill, engines.decode):
        assert sorted(network.shared.values()) == ["past_key_0", "past_key_1", "past_value_0", "past_value_1"]


@pytest.mark.skipif(not TRANSFORMERS_5, reason="transformers 4.51 lacks the class")
def test_layers_that_differ_in_heads_are_none_for_tensorrt_llm():
    with pytest.raises(UnsupportedFeature, match="and TensorRT-LLM's configuration has one size for all"):
        PackedEngine.of(tiny_model("gemma4_text"))


def test_the_configuration_of_tensorrt_llm_has_the_heads_of_its_plugins():
    engine = PackedEngine.of(tiny_model("gpt_bigcode"))  # whose configuration does not say that it has one KV head
    heads = 1 if TRANSFORMERS_5 else 4  # transformers 4.51 repeats it for each query head
    assert engine.config["pretrained_config"]["num_key_value_heads"] == heads
    assert engine.runtime.pools.layout.kv_heads == (heads, heads)


def test_a_refusal_says_why():
    assert check_class("rwkv" if TRANSFORMERS_5 else "mamba").verdict == "refused"
    assert check_class("nothing of that name") == Outcome("no model", 0.0, "KeyError: 'nothing of that name'")


def test_tiny_models_are_tiny_and_alike():
    config = tiny_config("llama")
    assert (config.hidden_size, config.num_hidden_layers, config.vocab_size) == (128, 2, 512)
    first, second = (tiny_model("llama").lm_head.weight for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, tiny_model("llama", seed=1).lm_head.weight)
