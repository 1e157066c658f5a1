"""Idefics3 and SmolVLM: tiles of one size and a view of the whole image, pixel shuffle, one linear layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from attrs import frozen
from torch import Tensor, nn
from typing_extensions import override

from ditto.errors import CheckpointError, PromptError
from ditto.families.encoder import Encoder, tile
from ditto.families.multimodal import MultimodalModel
from ditto.families.preprocessor import Preprocessor, TilePreprocessor
from ditto.runtime.encoding import EncoderItem
from ditto.wrappers.idefics3 import Idefics3Features


@frozen
class Idefics3Preprocessor(TilePreprocessor):
    """Preprocessor of tiles that a further axis groups by prompt."""

    @override
    def items(self, inputs: Mapping[str, Tensor]) -> list[EncoderItem]:
        mask = inputs.get("pixel_attention_mask")
        if mask is not None and not bool(mask.all()):
            raise PromptError(
                "the processor pads images; the vision engine takes whole tiles",
                remedy="let the processor resize images to tiles of one size, as in the model's own settings",
            )
        return super().items(inputs)

    @override
    def model_inputs(self, items: Sequence[EncoderItem]) -> dict[str, Tensor]:
        return {name: tensor[None] for name, tensor in super().model_inputs(items).items()}


@frozen(kw_only=True, slots=False)
class Idefics3Model(MultimodalModel):
    """`Idefics3ForConditionalGeneration`, also the first SmolVLM."""

    model_type: ClassVar[str] = "idefics3"
    preprocessor: ClassVar[Preprocessor] = Idefics3Preprocessor()

    @classmethod
    @override
    def encoder(cls, config: Any) -> Encoder:
        vision = config.vision_config
        side, scale = vision.image_size // vision.patch_size, config.scale_factor
        if side % scale:
            raise CheckpointError(
                f"a tile has {side} by {side} patches, which scale_factor {scale} does not divide",
                remedy="check image_size, patch_size and scale_factor in config.json",
            )
        return Encoder(
            inputs={"input": tile(vision.num_channels, vision.image_size, vision.image_size)},
            module=_features,
            rows=(side // scale) ** 2,
        )

    @classmethod
    @override
    def most_tiles(cls, config: Any, processor: Mapping[str, Any]) -> int:
        if not processor.get("do_image_splitting", True):
            return 1
        side = config.vision_config.image_size
        longest = processor.get("size", {}).get("longest_edge", 4 * side)
        return math.ceil(longest / side) ** 2 + 1  # the whole image is one more tile


@frozen(kw_only=True, slots=False)
class SmolVlmModel(Idefics3Model):
    """`SmolVLMForConditionalGeneration`: SmolVLM 2."""

    model_type: ClassVar[str] = "smolvlm"


def _features(model: nn.Module) -> nn.Module:
    parts: Any = getattr(model, "model", model)
    return Idefics3Features(parts.vision_model, parts.connector)
