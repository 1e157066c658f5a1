"""Prompts are random, of the wanted sizes, and free of special tokens."""

from __future__ import annotations

import torch

from ditto.bench.inputs import pictures, prompts
from ditto.bench.plan import rows_per_picture


def test_prompts_have_no_special_token(llava_tree):
    tokens = llava_tree.manifest.tokens
    made = prompts(llava_tree, 3, 2000)
    assert made.ids.shape == (3, 2000)
    assert made.pixels is None
    assert not set(made.ids.flatten().tolist()) & {*tokens.end, tokens.pad, tokens.image}
    assert made.ids.max() < tokens.vocab_size


def test_each_prompt_has_a_picture_and_its_places(llava_tree):
    rows = rows_per_picture(llava_tree)
    made = prompts(llava_tree, 2, rows + 6, with_pictures=True)
    assert (made.ids == llava_tree.manifest.tokens.image).sum(1).tolist() == [rows, rows]
    assert made.pixels.shape == (2, 3, 28, 28)
    assert torch.equal(made.pixels, pictures(llava_tree, 2))
