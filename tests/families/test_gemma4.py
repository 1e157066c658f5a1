"""Which forms of Gemma 4 there are, and which are refused."""

from __future__ import annotations

import pytest

from ditto import MultimodalModel
from ditto.errors import CheckpointError
from ditto.families.gemma4 import Gemma4Model, Gemma4Preprocessor, Gemma4SpanPreprocessor
from tests.support.families import FAMILIES
from tests.support.models import TRANSFORMERS_5

pytestmark = pytest.mark.skipif(not TRANSFORMERS_5, reason="the families follow transformers 5")


@pytest.mark.parametrize(("name", "has_spans"), [("gemma4", False), ("gemma4_with_spans", True)])
def test_the_configuration_says_whether_images_are_spans(name, has_spans, tmp_path):
    FAMILIES[name].save(tmp_path)
    model = MultimodalModel.from_pretrained(str(tmp_path)).with_max_images(2)
    assert (model.llm.spans is not None) == has_spans == model.llm.masks_see_types
    assert isinstance(Gemma4Preprocessor().configured(tmp_path), Gemma4SpanPreprocessor) == has_spans
    assert (model.llm.prompt_rows, model.vision.inputs["pixel_values"].shape[0].max) == (140, 70)


@pytest.mark.parametrize(("part", "reason"), [("vision", "it has no vision_config"), ("text", "see those behind them")])
def test_models_without_a_tower_or_an_order_are_refused(part, reason):
    config = FAMILIES["gemma4"].model(150).config
    if part == "vision":
        config.vision_config = None
    else:
        config.text_config.use_bidirectional_attention = "all"
    with pytest.raises(CheckpointError, match=reason):
        Gemma4Model.encoder(config)
