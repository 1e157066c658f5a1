"""Janus: understanding of images; it generates images with other parts of the model, which no engine has."""

from __future__ import annotations

from typing import Any, ClassVar

from attrs import frozen
from typing_extensions import override

from ditto.families.encoder import Encoder, tile
from ditto.families.multimodal import MultimodalModel
from ditto.wrappers.features import ImageFeatures


@frozen(kw_only=True, slots=False)
class JanusModel(MultimodalModel):
    """`JanusForConditionalGeneration`, for text about images."""

    model_type: ClassVar[str] = "janus"

    @classmethod
    @override
    def encoder(cls, config: Any) -> Encoder:
        vision = config.vision_config
        return Encoder(
            inputs={"input": tile(vision.num_channels, vision.image_size, vision.image_size)},
            module=ImageFeatures,
            rows=(vision.image_size // vision.patch_size) ** 2,
        )
