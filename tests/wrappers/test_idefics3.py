"""Positions of the patches of a whole tile are those of the model."""

from __future__ import annotations

import pytest
import torch
from transformers import Idefics3VisionConfig
from transformers.models.idefics3.modeling_idefics3 import Idefics3VisionTransformer

from ditto.wrappers.idefics3 import Idefics3Features, patch_positions
from tests.support.models import made


@pytest.mark.parametrize("sides", [1, 4, 14, 27])
def test_tiles_are_seen_as_hugging_face_sees_them(sides):
    config = Idefics3VisionConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=sides * 2,
        patch_size=2,
    )
    model = made(Idefics3VisionTransformer, config)
    pixels = torch.randn(2, 3, sides * 2, sides * 2)
    with torch.no_grad():
        found = Idefics3Features(model, torch.nn.Identity())(pixels)
        assert torch.allclose(found, model(pixels).last_hidden_state, atol=1e-5)
    whole = torch.ones(1, sides, sides, dtype=torch.bool)
    assert patch_positions(type(model.embeddings), config, whole).shape == (1, sides**2)
