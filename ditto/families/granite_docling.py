"""Granite Docling: tiles of one size and a view of the whole page, pixel shuffle, deepstack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from attrs import frozen
from torch import Tensor
from typing_extensions import override

from ditto.errors import CheckpointError, PromptError
from ditto.families.encoder import Encoder, square_tiles
from ditto.families.multimodal import MultimodalModel
from ditto.families.preprocessor import Preprocessor, TilePreprocessor
from ditto.runtime.encoding import EncoderItem
from ditto.wrappers.features import features_owner
from ditto.wrappers.idefics3 import DoclingFeatures


@frozen
class GraniteDoclingPreprocessor(TilePreprocessor):
    """Preprocessor of tiles that a further axis groups by prompt."""

    @override
    def items(self, inputs: Mapping[str, Tensor]) -> list[EncoderItem]:
        if "tile_fine_mask" in inputs:
            raise PromptError(
                "the processor takes the fine path, which has four image tokens where the engine has one",
                remedy="leave fine_route out of preprocessor_config.json",
            )
        return super().items({"pixel_values": inputs["pixel_values"][inputs["pixel_attention_mask"]]})

    @override
    def model_inputs(self, items: Sequence[EncoderItem]) -> dict[str, Tensor]:
        pixels = super().model_inputs(items)["pixel_values"]
        return {"pixel_values": pixels[None], "pixel_attention_mask": torch.ones(1, len(pixels), dtype=torch.bool)}


@frozen(kw_only=True, slots=False)
class GraniteDoclingModel(MultimodalModel):
    """`GraniteDoclingForConditionalGeneration`, on its coarse path."""

    model_type: ClassVar[str] = "granite_docling"
    preprocessor: ClassVar[Preprocessor] = GraniteDoclingPreprocessor()

    @classmethod
    @override
    def encoder(cls, config: Any) -> Encoder:
        vision = config.vision_config
        sizes = [getattr(vision, name) for name in ("image_size", "patch_size", "scale_factor")]
        if not all(isinstance(size, int) for size in sizes) or sizes[0] // sizes[1] % sizes[2]:
            raise CheckpointError(
                f"image_size, patch_size and scale_factor are {sizes}",
                remedy="use square tiles whose patches scale_factor divides",
            )
        layers = vision.deepstack_visual_indexes
        if sorted(set(layers)) != list(layers) or not all(0 <= each < vision.num_hidden_layers for each in layers):
            raise CheckpointError(
                f"deepstack_visual_indexes is {layers}, the tower has {vision.num_hidden_layers} layers",
                remedy="give layers of the tower in their order in config.json",
            )
        if len(layers) > config.text_config.num_hidden_layers:
            raise CheckpointError(
                f"{len(layers)} layers of the tower are added to {config.text_config.num_hidden_layers} of the decoder",
                remedy="check deepstack_visual_indexes in config.json",
            )
        encoder = square_tiles(vision, DoclingFeatures)
        return Encoder(inputs=encoder.inputs, module=encoder.module, rows=(sizes[0] // sizes[1] // sizes[2]) ** 2)

    @classmethod
    @override
    def most_tiles(cls, config: Any, processor: Mapping[str, Any]) -> int:
        if processor.get("fine_route", False):
            raise CheckpointError(
                "its processor takes the fine path, which has four times as many image tokens",
                remedy="set fine_route to false in preprocessor_config.json",
            )
        most = max(processor.get("max_patches", 32), processor.get("dense_max_patches", 0))
        return most + 1 if most > 1 and processor.get("crop_to_patches", True) else 1

    @classmethod
    @override
    def features(cls, model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        owner: Any = features_owner(model)
        found = owner.get_image_features(**inputs)
        layers = [torch.cat(list(layer)) for layer in found.deepstack_features]
        return torch.cat([torch.cat(list(found.pooler_output)), *layers], dim=-1)
