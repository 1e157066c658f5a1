"""Towers of views and tiles of two sizes, beside those of transformers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ditto.families.deepseek_ocr2 import DeepseekOcr2Model, DeepseekOcr2Preprocessor
from ditto.reference import RELATIVE_ERROR, relative_error
from ditto.wrappers.views import ViewFeatures
from tests.support.families import FAMILIES
from tests.support.models import TRANSFORMERS_5

pytestmark = pytest.mark.skipif(not TRANSFORMERS_5, reason="the families follow transformers 5")


@pytest.fixture(scope="module")
def model():
    return FAMILIES["deepseek_ocr2"].model(150)


@torch.no_grad()
@pytest.mark.parametrize("counts", [(2,), (0,), (0, 1, 2)], ids=["tiles", "view", "mixed"])
def test_embeddings_are_those_of_the_model(model, counts):
    generator = torch.Generator().manual_seed(1)
    given: dict[str, Any] = {"num_local_patches": torch.tensor(counts)}
    given["pixel_values"] = torch.randn(len(counts), 3, 64, 64, generator=generator)
    if sum(counts):
        given["pixel_values_local"] = torch.randn(sum(counts), 3, 48, 48, generator=generator)
    preprocessor = DeepseekOcr2Preprocessor()
    items, wrapper = preprocessor.items(given), ViewFeatures(model)
    found = torch.cat([wrapper(*(item.inputs[name] for name in ("view", "tiles", "order"))) for item in items])
    assert relative_error(found, DeepseekOcr2Model.features(model, given)) < RELATIVE_ERROR[torch.float32]
    again = preprocessor.model_inputs(items)
    assert again.keys() == given.keys() and all(torch.equal(again[name], given[name]) for name in given)
