"""First tokens are those that the models choose."""

from __future__ import annotations

import torch
from transformers import ViTConfig

from ditto.bench.first import first_token, first_token_of_model, open_system
from ditto.verify import inputs
from tests.support.models import VISION, llava


def test_a_first_token_of_a_model(saved_llava, eager):
    with torch.no_grad():
        logits = eager.model(torch.full((1, 16), 5)).logits[0, -1]
    assert first_token_of_model(str(saved_llava), "float32") == int(logits.argmax())


def test_a_first_token_of_a_tree(saved_tree, eager):
    wanted = eager.answer(inputs.prompts(saved_tree, 1, 16), 1)[0][0]
    assert first_token(open_system(saved_tree, "reference"), saved_tree) == wanted


def test_a_model_of_wide_images_is_given_such(tmp_path):
    tower = ViTConfig(**{**VISION, "image_size": [14, 28], "num_hidden_layers": 1})
    model = llava(tower, vision_feature_layer=-1)
    model.save_pretrained(tmp_path)
    assert first_token_of_model(str(tmp_path), "float32") >= 0
