"""The baselines do what Hugging Face's `generate` does."""

from __future__ import annotations

import pytest
import torch

from ditto.bench.baselines import CompiledBaseline
from ditto.verify import inputs


@pytest.fixture
def static(eager):
    """A static cache, and no compiler: what is compiled is the same function."""
    return CompiledBaseline(eager.model, torch.device("cpu"), eager.preprocessor, compiled=lambda work: work)


def test_a_static_cache_gives_the_tokens_of_generate(static, eager, saved_tree):
    for with_images in (False, True):
        given = inputs.prompts(saved_tree, 2, 30, with_images, seed=3)
        assert static.answer(given, 6) == eager.answer(given, 6)


def test_a_cache_serves_again(static, saved_tree):
    given = inputs.prompts(saved_tree, 1, 20)
    first = static.answer(given, 4)
    static.answer(inputs.prompts(saved_tree, 1, 20, seed=1), 4)
    assert static.answer(given, 4) == first


def test_end_tokens_do_not_end_an_answer(eager, saved_tree):
    given = inputs.prompts(saved_tree, 1, 9)
    (first, *_) = eager.answer(given, 5)[0]
    eager.model.generation_config.eos_token_id = first
    assert len(eager.answer(given, 5)[0]) == 5


def test_a_models_penalties_do_not_change_what_is_measured(eager, saved_tree):
    given = inputs.prompts(saved_tree, 1, 9)
    wanted, own = eager.answer(given, 5), eager.model.generation_config
    eager.model.generation_config = type(own)(suppress_tokens=list(wanted[0]), repetition_penalty=9.0)
    try:
        assert eager.answer(given, 5) == wanted
    finally:
        eager.model.generation_config = own


def test_features_are_the_same(static, eager, saved_tree):
    items = inputs.sample_items(saved_tree, 2)
    assert torch.equal(static.features(items), eager.features(items))
