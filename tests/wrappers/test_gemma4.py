"""Gemma 4's towers, beside those of transformers."""

from __future__ import annotations

import pytest
import torch

from ditto.capture.attention import register, use_semantic_attention
from ditto.families.gemma4 import Gemma4Model, Gemma4Preprocessor
from ditto.reference import RELATIVE_ERROR, relative_error
from ditto.wrappers.gemma4 import Gemma4Features
from tests.support.families import FAMILIES
from tests.support.models import TRANSFORMERS_5

pytestmark = pytest.mark.skipif(not TRANSFORMERS_5, reason="the families follow transformers 5")


@torch.no_grad()
def test_values_are_clipped_as_the_model_clips_them():
    model = FAMILIES["gemma4"].model(150)
    config = model.config
    config.vision_config.use_clipped_linears = True
    model = type(model)(config).eval()
    for name, limit in model.model.vision_tower.named_buffers():
        if name.endswith(("_min", "_max")):
            limit.fill_(-0.05 if name.endswith("_min") else 0.05)
        if name.startswith("std"):
            limit.fill_(0.5)
    preprocessor = Gemma4Preprocessor(model)
    item = preprocessor.item(torch.rand(24, 48), torch.tensor([[1, 4, 6]]))
    wanted = Gemma4Model.features(model, preprocessor.model_inputs([item]))
    register()
    wrapper = Gemma4Features(model)
    use_semantic_attention(wrapper)
    found = wrapper(item.inputs["pixel_values"], item.inputs["position_ids"])
    assert relative_error(found, wanted) < RELATIVE_ERROR[torch.float32]
