"""Neighbours of patches, as a convolution sees them."""

from __future__ import annotations

import pytest
import torch

from ditto.errors import CheckpointError
from ditto.families.lfm3_vl import Lfm3VlModel, Lfm3VlPreprocessor
from tests.support.families import FAMILIES
from tests.support.models import TRANSFORMERS_5

pytestmark = pytest.mark.skipif(not TRANSFORMERS_5, reason="the families follow transformers 5")


def test_neighbours_are_those_of_a_convolution():
    """A convolution of ones over one image of patches, which come token by token."""
    model = FAMILIES["lfm3_vl"].model(150)
    preprocessor = Lfm3VlPreprocessor(model)
    grid = torch.tensor([[1, 4, 6]])
    found = preprocessor.of_grid(grid)["neighbours"]
    rows, columns = preprocessor.of_grid(grid)["position_ids"].unbind(-1)
    image = torch.randn(4, 6)
    values = torch.cat([torch.zeros(1), image[rows, columns]])
    wanted = torch.nn.functional.conv2d(image[None, None], torch.ones(1, 1, 3, 3), padding=1)[0, 0]
    torch.testing.assert_close(values[found].sum(-1), wanted[rows, columns])


def test_a_convolution_without_a_centre_is_refused():
    config = FAMILIES["lfm3_vl"].model(150).config
    config.vision_config.conv_kernel_size = 2
    with pytest.raises(CheckpointError, match="conv_kernel_size` is 2"):
        Lfm3VlModel.encoder(config)
