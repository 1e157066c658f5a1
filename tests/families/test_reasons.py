"""Reasons are for models of transformers without a family."""

from __future__ import annotations

from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from ditto.families.reasons import REASONS
from ditto.families.registry import supported_types
from tests.support.models import TRANSFORMERS_5


def test_no_model_has_both_a_family_and_a_reason():
    assert not set(REASONS) & set(supported_types())


def test_reasons_are_for_image_text_models():
    if TRANSFORMERS_5:
        assert set(REASONS) <= set(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
