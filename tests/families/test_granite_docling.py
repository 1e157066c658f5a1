"""Granite Docling's fine path, and layers that its decoder does not have, are refused by name."""

from __future__ import annotations

import pytest
import torch

from ditto.errors import CheckpointError, PromptError
from ditto.families.registry import find_family
from tests.support.families import FAMILIES
from tests.support.models import TRANSFORMERS_5

pytestmark = pytest.mark.skipif(not TRANSFORMERS_5, reason="the family follows transformers 5")


def test_the_fine_path_is_refused():
    family = find_family("granite_docling")
    config = FAMILIES["granite_docling"].model(4).config
    with pytest.raises(CheckpointError, match="takes the fine path"):
        family.most_tiles(config, {"fine_route": True})
    with pytest.raises(PromptError, match="takes the fine path"):
        family.preprocessor.items({"pixel_values": torch.zeros(1, 1, 3, 28, 28), "tile_fine_mask": torch.ones(1)})


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("deepstack_visual_indexes", [1, 0], "the tower has 2 layers"),
        ("deepstack_visual_indexes", [0, 2], "the tower has 2 layers"),
        ("scale_factor", 3, r"image_size, patch_size and scale_factor are \[28, 7, 3\]"),
    ],
)
def test_other_towers_are_refused(name, value, said):
    config = FAMILIES["granite_docling"].model(4).config
    setattr(config.vision_config, name, value)
    with pytest.raises(CheckpointError, match=said):
        find_family("granite_docling").encoder(config)


def test_more_layers_than_those_of_the_decoder_are_refused():
    config = FAMILIES["granite_docling"].model(4).config
    config.text_config.num_hidden_layers = 1
    with pytest.raises(CheckpointError, match="2 layers of the tower are added to 1 of the decoder"):
        find_family("granite_docling").encoder(config)
