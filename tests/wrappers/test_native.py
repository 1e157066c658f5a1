"""Towers of images in native size give Hugging Face's image embeddings for the patches of one image."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from attrs import evolve

from ditto.capture.attention import register, use_semantic_attention
from ditto.families.native import NativeSizeModel
from ditto.families.registry import find_family
from ditto.reference import RELATIVE_ERROR, relative_error
from tests.support.families import FAMILIES
from tests.support.models import TRANSFORMERS_5

NATIVE = sorted(name for name in FAMILIES if issubclass(find_family(name) or object, NativeSizeModel))
IMAGE = 10


@pytest.mark.skipif(not TRANSFORMERS_5, reason="the families follow transformers 5")
@torch.no_grad()
@pytest.mark.parametrize("name", NATIVE)
@pytest.mark.parametrize("grid", [(4, 6), (2, 10), (6, 2)])
def test_wrappers_give_the_models_own_embeddings(name, grid):
    family, model = find_family(name), FAMILIES[name].model(IMAGE)
    preprocessor = evolve(family.preprocessor, model=SimpleNamespace(config=model.config))
    encoder = family.encoder(model.config)
    values = encoder.inputs["pixel_values"].shape[2:]
    patches = torch.randn(grid[0] * grid[1], *values, generator=torch.Generator().manual_seed(0))
    item = preprocessor.item(patches, torch.tensor([[1, *grid]]))
    assert list(item.inputs) == list(encoder.inputs)
    given = preprocessor.model_inputs([item])
    assert torch.equal(given["pixel_values"], patches) and given["image_grid_thw"].tolist() == [[1, *grid]]
    wanted = family.features(model, given)
    wrapper = encoder.module(model)
    register()
    use_semantic_attention(wrapper)
    found = wrapper(*item.inputs.values())
    assert found.shape == wanted.shape
    assert relative_error(found, wanted) < RELATIVE_ERROR[torch.float32]
