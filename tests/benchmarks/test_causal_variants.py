"""Variants of the popular classes equal Hugging Face: a few always, all of them in the slow part."""

from __future__ import annotations

import pytest

from benchmarks.causal_variants import VARIANTS, check_half, check_variant
from tests.support.models import TRANSFORMERS_5

pytestmark = pytest.mark.skipif(not TRANSFORMERS_5, reason="the settings are those of transformers 5")
EVERY = [(model_type, name) for model_type, variants in VARIANTS.items() for name in variants]
FEW = [("llama", "biases"), ("qwen3_moe", "shares as they are"), ("gemma2", "windows")]


def test_each_class_has_five_variants():
    assert all(len(variants) >= 5 for variants in VARIANTS.values())


@pytest.mark.parametrize(("model_type", "name"), FEW)
def test_a_variant_equals_hugging_face(model_type, name):
    outcome = check_variant(model_type, name)
    assert outcome.verdict == "verified", outcome


@pytest.mark.parametrize(("model_type", "name"), [("llama", "biases")])
def test_a_variant_in_float16_is_as_close_as_hugging_face(model_type, name):
    outcome = check_half(model_type, name)
    assert outcome.verdict == "verified", outcome


@pytest.mark.slow
@pytest.mark.parametrize("form", ["combined", "separate", "packed"])
@pytest.mark.parametrize(("model_type", "name"), EVERY)
def test_every_variant_equals_hugging_face_or_is_refused(model_type, name, form):
    outcome = check_variant(model_type, name, form)
    assert outcome.verdict == "verified" or (form == "packed" and outcome.verdict == "refused"), outcome


@pytest.mark.slow
@pytest.mark.parametrize(("model_type", "name"), EVERY)
def test_every_variant_in_float16_is_as_close_as_hugging_face(model_type, name):
    outcomes = [check_half(model_type, name, seed=seed) for seed in range(3)]
    assert sum(outcome.verdict == "verified" for outcome in outcomes) >= 2, outcomes  # rounding may choose experts
