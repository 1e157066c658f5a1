"""Families of padded images refuse what their engines do not take."""

from __future__ import annotations

import pytest
import torch

from ditto.errors import CheckpointError, PromptError, TreeError
from ditto.families.registry import find_family
from tests.support.families import FAMILIES
from tests.support.models import TRANSFORMERS_5

pytestmark = pytest.mark.skipif(not TRANSFORMERS_5, reason="the families follow transformers 5")


def _config(kind, **changes):
    config = FAMILIES[kind].model(4).config
    for name, value in changes.items():
        part, _, attribute = name.rpartition("__")
        setattr(getattr(config, part) if part else config, attribute, value)
    return config


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("aria", {"vision_feature_layer": 4}, "of 2 layers, vision_feature_layer is 4"),
        ("aria", {"vision_feature_layer": [-1, -2]}, r"vision_feature_layer is \[-1, -2\]"),
        ("aria", {"projector_patch_to_query_dict": {1225: 128}}, "an image has 49 patches"),
        ("aria", {"vision_config__patch_size": 141}, "980 pixels along each side, patches 141"),
        ("idefics2", {"vision_config__patch_size": 5}, "56 pixels along each side, patches 5"),
    ],
)
def test_configurations_are_refused_by_name(kind, changes, said):
    with pytest.raises(CheckpointError, match=said):
        find_family(kind).encoder(_config(kind, **changes))


def test_an_earlier_layer_of_the_tower_is_one_of_its_layers(tmp_path):
    family, model = find_family("aria"), FAMILIES["aria"].model(4)
    model.config.vision_feature_layer = -2
    model.config.save_pretrained(tmp_path)
    module = family.encoder(model.config).module(model)
    pixels, mask = torch.randn(1, 3, 980, 980), torch.ones(1, 980, 980, dtype=torch.bool)
    mask[:, 300:] = False
    (item,) = family.preprocessor.configured(tmp_path).items({"pixel_values": pixels, "pixel_mask": mask})
    with torch.no_grad():
        found = module(item.inputs["input"][None], item.inputs["position_ids"][None])
        wanted = family.features(model, {"pixel_values": pixels, "pixel_mask": mask})
    torch.testing.assert_close(found[0], wanted, rtol=1e-4, atol=1e-4)


def test_images_that_are_larger_than_the_engine_takes_are_refused(tmp_path):
    preprocessor = find_family("idefics2").preprocessor
    with pytest.raises(TreeError, match=r"the tree has no config.json of the model"):
        preprocessor.items({"pixel_values": torch.zeros(1, 1, 3, 56, 56)})
    _config("idefics2").save_pretrained(tmp_path)
    with pytest.raises(PromptError, match=r"images of \[60, 20\] pixels; the vision engine takes at most 56"):
        preprocessor.configured(tmp_path).items({"pixel_values": torch.zeros(1, 1, 3, 60, 20)})
