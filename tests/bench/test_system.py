"""A tree as a system gives Hugging Face's tokens, and no token ends its answers."""

from __future__ import annotations

import torch
from attrs import evolve

from ditto.bench.system import open_endless
from ditto.verify import inputs


def test_it_answers_as_hugging_face_does(ours, eager, saved_tree):
    for with_images in (False, True):
        given = inputs.prompts(saved_tree, 2, 30, with_images)
        assert ours.answer(given, 6) == eager.answer(given, 6)


def test_images_become_features(ours, saved_tree, eager):
    items = inputs.sample_items(saved_tree, 2)
    assert torch.allclose(torch.cat(ours.features(items)), eager.features(items), atol=1e-4)


def test_no_token_ends_an_answer(saved_tree):
    tokens = saved_tree.manifest.tokens
    every = evolve(
        saved_tree, manifest=evolve(saved_tree.manifest, tokens=evolve(tokens, end=list(range(tokens.vocab_size))))
    )
    session = open_endless(every, "reference")
    assert session.tokens.end == []
