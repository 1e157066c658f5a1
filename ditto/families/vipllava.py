"""ViP-LLaVA: features of several layers, normalised and projected."""

from __future__ import annotations

from typing import Any, ClassVar

from attrs import frozen
from typing_extensions import override

from ditto.families.encoder import Encoder, pair, tile
from ditto.families.multimodal import MultimodalModel
from ditto.wrappers.features import ImageFeatures


@frozen(kw_only=True, slots=False)
class VipLlavaModel(MultimodalModel):
    """`VipLlavaForConditionalGeneration`."""

    model_type: ClassVar[str] = "vipllava"

    @classmethod
    @override
    def encoder(cls, config: Any) -> Encoder:
        vision = config.vision_config
        height, width = pair("image_size", vision.image_size)
        patch_height, patch_width = pair("patch_size", vision.patch_size)
        patches = (height // patch_height) * (width // patch_width)
        before = 1 if vision.model_type == "clip_vision_model" else 0
        return Encoder(
            inputs={"input": tile(vision.num_channels, height, width)},
            module=ImageFeatures,
            rows=before + patches - 1,  # the first token is dropped, of any kind
        )
