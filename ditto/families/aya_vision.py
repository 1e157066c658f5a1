"""Aya Vision and Command A Vision: tiles of one size and a view of the whole image, pixel shuffle, gated projector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from attrs import frozen
from typing_extensions import override

from ditto.errors import CheckpointError
from ditto.families.encoder import Encoder, tile, tiles_and_view
from ditto.families.multimodal import MultimodalModel
from ditto.wrappers.features import ImageFeatures


@frozen(kw_only=True, slots=False)
class AyaVisionModel(MultimodalModel):
    """`AyaVisionForConditionalGeneration`."""

    model_type: ClassVar[str] = "aya_vision"

    @classmethod
    @override
    def encoder(cls, config: Any) -> Encoder:
        vision, factor = config.vision_config, config.downsample_factor
        side = vision.image_size // vision.patch_size
        if getattr(config, "vision_feature_select_strategy", "full") != "full" or side % factor:
            raise CheckpointError(
                f"a tile has {side} by {side} patches, and downsample_factor is {factor}",
                remedy="use tiles whose patches downsample_factor divides, and the strategy `full`",
            )
        return Encoder(
            inputs={"input": tile(vision.num_channels, vision.image_size, vision.image_size)},
            module=ImageFeatures,
            rows=(side // factor) ** 2,
        )

    @classmethod
    @override
    def most_tiles(cls, config: Any, processor: Mapping[str, Any]) -> int:
        return tiles_and_view(processor)


@frozen(kw_only=True, slots=False)
class Cohere2VisionModel(AyaVisionModel):
    """`Cohere2VisionForConditionalGeneration`."""

    model_type: ClassVar[str] = "cohere2_vision"
