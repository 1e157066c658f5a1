"""A model's family follows from its configuration."""

from __future__ import annotations

import json

import pytest

from ditto import LlavaModel, LlmBuilder
from ditto.errors import ConfigError
from ditto.families.registry import family_of
from tests.support.models import llama


def test_a_llava_is_a_llava(shapes_checkpoint):
    assert isinstance(family_of(str(shapes_checkpoint)), LlavaModel)


def test_a_text_model_is_a_language_model_alone(tmp_path):
    llama().save_pretrained(tmp_path)
    assert isinstance(family_of(str(tmp_path)), LlmBuilder)


@pytest.mark.parametrize("model_type", ["clip", "vit", "blip-2"])
def test_other_models_are_refused_with_what_is_supported(tmp_path, model_type):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(ConfigError, match=f"model type '{model_type}' is not supported") as caught:
        family_of(str(tmp_path))
    assert "supported: llava, and text-only causal language models" in str(caught.value)
