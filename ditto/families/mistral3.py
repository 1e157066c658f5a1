"""Mistral 3 and LightOnOCR: Pixtral's tower, which takes images in native size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from attrs import frozen
from torch import Tensor
from typing_extensions import override

from ditto.errors import CheckpointError, PromptError
from ditto.families.encoder import Encoder
from ditto.families.native import (
    NativePreprocessor,
    NativeSizeModel,
    by_token,
    merge_size,
    number,
    square_pixels,
)
from ditto.families.preprocessor import Preprocessor
from ditto.runtime.encoding import EncoderItem
from ditto.wrappers.pixtral import LightOnFeatures, MergedPixtralFeatures


@frozen
class PixtralPreprocessor(NativePreprocessor):
    """Preprocessor of images that are padded to the size of the largest one."""

    row_by_row: ClassVar[bool] = True
    multimodal_rope: ClassVar[bool] = False

    @override
    def items(self, inputs: Mapping[str, Tensor]) -> list[EncoderItem]:
        sizes = [(int(height), int(width)) for height, width in inputs["image_sizes"]]
        return [self._image(image, *size) for image, size in zip(inputs["pixel_values"], sizes, strict=True)]

    def _image(self, image: Tensor, height: int, width: int) -> EncoderItem:
        """The item of an image [channels, ...] whose first rows and columns count."""
        patch = number(self.config, "patch_size")
        side = patch * merge_size(self.config)
        if height % side or width % side:
            raise PromptError(
                f"an image becomes {height} by {width} pixels; the engine takes multiples of {side}",
                remedy=f"set `patch_size` of the image processor to {side} in preprocessor_config.json",
            )
        rows = image[:, :height, :width].unflatten(2, (-1, patch)).unflatten(1, (-1, patch))
        patches = rows.permute(1, 3, 0, 2, 4).flatten(0, 1)
        return self.item(patches, torch.tensor([[1, height // patch, width // patch]]))

    @override
    def model_inputs(self, items: Sequence[EncoderItem]) -> dict[str, Tensor]:
        found = [self.patches(item) for item in items]
        images = [
            patches.unflatten(0, (-1, int(grid[0, 2]))).permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2)
            for patches, grid in found
        ]
        sizes = torch.tensor([image.shape[1:] for image in images])
        height, width = sizes.amax(0).tolist()
        padded = [
            torch.nn.functional.pad(image, (0, width - image.shape[2], 0, height - image.shape[1])) for image in images
        ]
        return {"pixel_values": torch.stack(padded), "image_sizes": sizes}


@frozen(kw_only=True, slots=False)
class Mistral3Model(NativeSizeModel):
    """`Mistral3ForConditionalGeneration`."""

    model_type: ClassVar[str] = "mistral3"
    preprocessor: ClassVar[Preprocessor] = PixtralPreprocessor()

    @classmethod
    @override
    def encoder(cls, config: Any) -> Encoder:
        layers, count = config.vision_feature_layer, config.vision_config.num_hidden_layers
        if not isinstance(layers, int) and len(layers) != 1:
            raise CheckpointError(
                f"`vision_feature_layer` is {list(layers)}; the model's own norm takes one layer",
                remedy="give one number in config.json",
            )
        layer = layers if isinstance(layers, int) else layers[0]
        if not -count - 1 <= layer <= count:
            raise CheckpointError(
                f"`vision_feature_layer` is {layer}, the tower has {count} layers",
                remedy=f"give a number from {-count - 1} to {count} in config.json",
            )
        return pixtral(config, MergedPixtralFeatures)


@frozen(kw_only=True, slots=False)
class LightOnOcrModel(NativeSizeModel):
    """`LightOnOcrForConditionalGeneration`."""

    model_type: ClassVar[str] = "lighton_ocr"
    preprocessor: ClassVar[Preprocessor] = PixtralPreprocessor()

    @classmethod
    @override
    def encoder(cls, config: Any) -> Encoder:
        return pixtral(config, LightOnFeatures)


def pixtral(config: Any, module: Any) -> Encoder:
    """The encoder of a model with Pixtral's tower.

    Raises:
        CheckpointError: it has another tower.
    """
    tower = config.vision_config.model_type
    if tower != "pixtral":
        raise CheckpointError(f"its tower is {tower!r}, not 'pixtral'", remedy="use a model with Pixtral's tower")
    return Encoder(inputs={"pixel_values": square_pixels(config), "position_ids": by_token(config, 2)}, module=module)
