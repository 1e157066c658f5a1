"""Which sizes of views and tiles DeepSeek-OCR 2 takes, and how many."""

from __future__ import annotations

import pytest

from ditto import MultimodalModel
from ditto.errors import CheckpointError, ConfigError
from ditto.families.deepseek_ocr2 import DeepseekOcr2Model
from tests.support.families import FAMILIES
from tests.support.models import TRANSFORMERS_5

pytestmark = pytest.mark.skipif(not TRANSFORMERS_5, reason="the families follow transformers 5")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"tile_size": 64}, "tiles of 64"),
        ({"size": {"height": 96, "width": 96}}, "views of 96 by 96 pixels"),
        ({"crop_to_patches": False}, "crop_to_patches is False"),
    ],
    ids=["tile", "view", "crop"],
)
def test_sizes_without_queries_are_refused(settings, reason):
    config = FAMILIES["deepseek_ocr2"].model(150).config
    assert (
        DeepseekOcr2Model.most_tiles(config, {}) == 7 and DeepseekOcr2Model.most_tiles(config, {"max_patches": 9}) == 10
    )
    with pytest.raises(CheckpointError, match=reason):
        DeepseekOcr2Model.most_tiles(config, settings)


def test_patches_that_are_not_square_are_refused():
    config = FAMILIES["deepseek_ocr2"].model(150).config
    config.vision_config.sam_config.patch_size = [1, 2]
    with pytest.raises(CheckpointError, match="patches have 1 by 2 pixels"):
        DeepseekOcr2Model.encoder(config)


def test_the_engine_takes_one_image_with_its_tiles(tmp_path):
    FAMILIES["deepseek_ocr2"].save(tmp_path)
    model = MultimodalModel.from_pretrained(str(tmp_path)).with_max_images(2)
    assert model.llm.prompt_rows == 2 * (6 * 144 + 257)
    fewer = model.with_max_tiles(3)
    assert fewer.llm.prompt_rows == 2 * (2 * 144 + 257) and fewer.vision.inputs["tiles"].shape[0].max == 2
    with pytest.raises(ConfigError, match="takes one image in each call"):
        model.with_vision_batch(2)
