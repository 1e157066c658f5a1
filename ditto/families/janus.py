"""Janus: understanding of images; it generates images with other parts of the model, which no engine has."""

from __future__ import annotations

from typing import Any, ClassVar

from attrs import frozen
from typing_extensions import override

from ditto.families.encoder import Encoder, square_tiles
from ditto.families.multimodal import MultimodalModel
from ditto.wrappers.features import ImageFeatures


@frozen(kw_only=True, slots=False)
class JanusModel(MultimodalModel):
    """`JanusForConditionalGeneration`, for text about images."""

    model_type: ClassVar[str] = "janus"

    @classmethod
    @override
    def encoder(cls, config: Any) -> Encoder:
        return square_tiles(config.vision_config, ImageFeatures)
