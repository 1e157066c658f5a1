"""First tokens are those that the models choose."""

from __future__ import annotations

import torch

from ditto.bench.first import first_token, first_token_of_model, open_system
from ditto.verify import inputs


def test_a_first_token_of_a_model(saved_llava, eager):
    with torch.no_grad():
        logits = eager.model(torch.full((1, 16), 5)).logits[0, -1]
    assert first_token_of_model(str(saved_llava), "float32") == int(logits.argmax())


def test_a_first_token_of_a_tree(saved_tree, eager):
    wanted = eager.answer(inputs.prompts(saved_tree, 1, 16), 1)[0][0]
    assert first_token(open_system(saved_tree, "reference"), saved_tree) == wanted
