"""Rope that is scaled reaches as far as its factor says, and there the tokens are Hugging Face's."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma3TextConfig, GPT2Config, LlamaConfig

from ditto import LlmBuilder
from ditto.builders.positions import most_positions
from ditto.errors import ConfigError
from ditto.runtime import Request, generate, open_session
from tests.support.models import TEXT, TRANSFORMERS_5, llama, rope

LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}


@pytest.mark.parametrize(
    ("scaling", "most"),
    [
        ({}, 64),
        ({"rope_type": "linear", "factor": 2.0}, 128),
        ({"rope_type": "linear", "factor": 2.5}, 160),
        ({"rope_type": "yarn", "factor": 4.0}, 256),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}, 256),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}, 64),
        ({"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8, **LLAMA3}, 64),
        ({"rope_type": "llama3", "factor": 4.0, "original_max_position_embeddings": 32, **LLAMA3}, 128),
        ({"rope_type": "dynamic", "factor": 2.0}, 64),
    ],
)
def test_the_scaled_length_is_allowed_and_no_more(scaling, most):
    model = llama(**rope(**scaling))
    assert most_positions(model.config) == most
    builder = LlmBuilder.from_model(model)
    assert builder.with_max_seq_len(most).limits.max_seq_len == most
    with pytest.raises(
        ConfigError, match=f"max_seq_len {most + 1} is more than the model's {most} positions"
    ) as caught:
        _ = builder.with_max_seq_len(most + 1).limits
    assert caught.value.remedy == f"lower it to {most}"
    assert ("changing its frequencies" in caught.value.cause) == (scaling.get("rope_type") == "dynamic")
    assert builder.limits.max_seq_len == 64


def test_old_names_of_scaling_count():
    config = LlamaConfig(**TEXT, rope_scaling={"type": "linear", "factor": 2.0})
    assert most_positions(config) == 128


def test_learned_positions_have_no_factor():
    assert most_positions(GPT2Config(n_positions=32)) == 32


def test_a_model_that_states_its_scaled_length_keeps_it():
    scaled = {} if TRANSFORMERS_5 else {"rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    assert most_positions(Gemma3TextConfig(max_position_embeddings=128, **scaled)) == 128


@pytest.mark.parametrize(
    "scaling",
    [
        {"rope_type": "linear", "factor": 2.0},
        {"rope_type": "yarn", "factor": 2.0},
        {"rope_type": "llama3", "factor": 2.0, "original_max_position_embeddings": 64, **LLAMA3},
    ],
    ids=lambda scaling: scaling["rope_type"],
)
@pytest.mark.parametrize("target", ["tensorrt-rtx", "trtllm"])
def test_beyond_the_unscaled_length_the_tokens_are_hugging_faces(scaling, target, tmp_path):
    llama(**rope(**scaling), eos_token_id=None).save_pretrained(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    ids = torch.arange(62)[None] * 7 % 120 + 3
    with torch.no_grad():
        made = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=10, do_sample=False)
    builder = LlmBuilder.from_pretrained(str(tmp_path / "model")).with_target(target).with_max_seq_len(128)
    session = open_session(builder.build(tmp_path / "tree"), "reference")
    (answer,) = generate(session, [Request(tuple(ids[0].tolist()))], 10)
    assert list(answer.ids) == made[0, 62:].tolist()
