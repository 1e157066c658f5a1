"""Parts of towers that bring patches together, beside those of transformers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ditto.capture.attention import register, use_semantic_attention
from ditto.families.lfm3_vl import Lfm3VlPreprocessor
from ditto.wrappers.neighbours import ConvolvedFeatures, MiniCpmFeatures
from tests.support.families import FAMILIES
from tests.support.models import TRANSFORMERS_5

pytestmark = pytest.mark.skipif(not TRANSFORMERS_5, reason="the families follow transformers 5")


@torch.no_grad()
def test_convolutions_of_patches_are_those_of_images():
    model = FAMILIES["lfm3_vl"].model(150)
    wrapper: Any = ConvolvedFeatures(model)
    conv = wrapper.tower.layers[0].conv
    grid, hidden = torch.tensor([[1, 6, 4]]), torch.randn(24, 32)
    around = Lfm3VlPreprocessor(model).of_grid(grid)["neighbours"]
    torch.testing.assert_close(wrapper._convolved(conv, hidden, around), conv(hidden, grid.tolist()))


@torch.no_grad()
def test_merged_windows_are_those_of_the_model():
    wrapper: Any = MiniCpmFeatures(FAMILIES["minicpmv4_6"].model(150))
    merger, hidden = wrapper.tower.vit_merger, torch.randn(8, 2, 2, 32)  # 4 by 2 windows
    image = hidden.view(4, 2, 2, 2, 32).transpose(1, 2).reshape(1, -1, 32)
    wanted = merger(image, torch.tensor([[8, 4]]))[0]
    register()
    use_semantic_attention(wrapper)
    torch.testing.assert_close(wrapper._merged(merger, hidden.flatten(0, 2)), wanted)
