"""Pixtral's tower gives Hugging Face's image embeddings: test_native.py holds all forms of it; here, its layers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from attrs import evolve

from ditto.capture.attention import register, use_semantic_attention
from ditto.families.registry import find_family
from ditto.reference import RELATIVE_ERROR, relative_error
from tests.support.families import FAMILIES, WITH_TORCHVISION
from tests.support.models import TRANSFORMERS_5

IMAGE = 10


@pytest.mark.skipif(not TRANSFORMERS_5, reason="the families follow transformers 5")
@torch.no_grad()
def test_the_layer_of_pixtral_is_the_configurations():
    family, model = find_family("mistral3"), WITH_TORCHVISION["mistral3"].model(IMAGE)
    model.config.vision_feature_layer = -2
    preprocessor = evolve(family.preprocessor, model=SimpleNamespace(config=model.config))
    item = preprocessor.item(torch.randn(24, 3, 7, 7), torch.tensor([[1, 4, 6]]))
    wanted = family.features(model, preprocessor.model_inputs([item]))
    wrapper = family.encoder(model.config).module(model)
    register()
    use_semantic_attention(wrapper)
    assert relative_error(wrapper(*item.inputs.values()), wanted) < RELATIVE_ERROR[torch.float32]


@pytest.mark.skipif(not TRANSFORMERS_5, reason="the families follow transformers 5")
@torch.no_grad()
def test_lighton_takes_the_last_layer_whatever_the_configuration_says():
    family, model = find_family("lighton_ocr"), FAMILIES["lighton_ocr"].model(IMAGE)
    model.config.vision_feature_layer = -2  # transformers keeps it, and ignores it
    preprocessor = evolve(family.preprocessor, model=SimpleNamespace(config=model.config))
    item = preprocessor.item(torch.randn(24, 3, 7, 7), torch.tensor([[1, 4, 6]]))
    wanted = family.features(model, preprocessor.model_inputs([item]))
    wrapper = family.encoder(model.config).module(model)
    register()
    use_semantic_attention(wrapper)
    assert relative_error(wrapper(*item.inputs.values()), wanted) < RELATIVE_ERROR[torch.float32]
