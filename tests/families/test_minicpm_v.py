"""Which MiniCPM-V models are refused, and what their processors' limits become."""

from __future__ import annotations

import pytest

from ditto import MultimodalModel
from ditto.errors import CheckpointError, ConfigError
from ditto.families.minicpm_v import MiniCpmV46Model
from tests.support.families import FAMILIES
from tests.support.models import TRANSFORMERS_5

pytestmark = pytest.mark.skipif(not TRANSFORMERS_5, reason="the families follow transformers 5")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    directory = tmp_path_factory.mktemp("minicpm")
    return directory, FAMILIES["minicpmv4_6"].save(directory)


@pytest.mark.parametrize(
    ("where", "setting"),
    [
        ("model", {"downsample_mode": "8x"}),
        ("model", {"merger_times": 2}),
        ("model", {"merge_kernel_size": [1, 2]}),
        ("tower", {"window_kernel_size": [4, 4]}),
        ("tower", {"insert_layer_id": 3}),
    ],
    ids=["mode", "times", "kernel", "window", "layer"],
)
def test_other_mergers_are_refused(checkpoint, where, setting):
    config = type(checkpoint[1].config).from_dict(checkpoint[1].config.to_dict())
    for name, value in setting.items():
        setattr(config if where == "model" else config.vision_config, name, value)
    with pytest.raises(CheckpointError, match=f"{next(iter(setting))} "):
        MiniCpmV46Model.encoder(config)


def test_the_processor_limits_images(checkpoint):
    """Slices of 56 by 56 pixels are 2 by 2 tokens; an image becomes up to four of them, and one of the whole."""
    model = MultimodalModel.from_pretrained(str(checkpoint[0]))
    assert (model.max_tiles, model.max_image_tokens, model.llm.prompt_rows) == (5, 8, 5 * 9)
    with pytest.raises(ConfigError, match="leave out --max-image-size"):
        model.with_max_image_size(56, 56)
