"""Video-LLaVA, for images: a tower of its own for them, and an MLP projector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from attrs import frozen
from torch import Tensor
from typing_extensions import override

from ditto.errors import CheckpointError
from ditto.families.encoder import Encoder, tile
from ditto.families.multimodal import MultimodalModel
from ditto.families.preprocessor import Preprocessor, TilePreprocessor
from ditto.runtime.encoding import EncoderItem
from ditto.wrappers.features import ImageFeatures, embeddings, features_owner


@frozen
class VideoLlavaPreprocessor(TilePreprocessor):
    """Preprocessor of pixels that have one of two names, depending on the version of transformers."""

    @override
    def items(self, inputs: Mapping[str, Tensor]) -> list[EncoderItem]:
        return super().items({"pixel_values_images": _pixels(inputs)})


@frozen(kw_only=True, slots=False)
class VideoLlavaModel(MultimodalModel):
    """`VideoLlavaForConditionalGeneration`, without videos."""

    model_type: ClassVar[str] = "video_llava"
    preprocessor: ClassVar[Preprocessor] = VideoLlavaPreprocessor({"input": "pixel_values_images"})

    @classmethod
    @override
    def encoder(cls, config: Any) -> Encoder:
        vision = config.vision_config
        if vision.model_type != "clip_vision_model":
            raise CheckpointError(
                f"the tower of images is a {vision.model_type!r} model", remedy="use a checkpoint with a CLIP tower"
            )
        dropped = 1 if config.vision_feature_select_strategy == "default" else 0
        return Encoder(
            inputs={"input": tile(vision.num_channels, vision.image_size, vision.image_size)},
            module=ImageFeatures,
            rows=(vision.image_size // vision.patch_size) ** 2 + 1 - dropped,
        )

    @classmethod
    @override
    def features(cls, model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        owner: Any = features_owner(model)
        return embeddings(owner.get_image_features(pixel_values=_pixels(inputs)))


def _pixels(inputs: Mapping[str, Tensor]) -> Tensor:
    return inputs["pixel_values_images" if "pixel_values_images" in inputs else "pixel_values"]
