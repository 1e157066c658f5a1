"""LLaVA-NeXT, also Granite Vision: images of any resolution, assembled from tiles."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from attrs import evolve, frozen
from torch import Tensor
from typing_extensions import override

from ditto.engine import Assembly
from ditto.errors import CheckpointError
from ditto.families.encoder import Encoder, pair
from ditto.families.llava import LlavaModel, LlavaPreprocessor
from ditto.families.preprocessor import Preprocessor
from ditto.runtime.encoding import EncoderItem, EncoderShapes


@frozen
class AssembledPreprocessor(LlavaPreprocessor):
    """Preprocessor of images that are assembled from tiles."""

    @override
    def items(self, inputs: Mapping[str, Tensor]) -> list[EncoderItem]:
        sizes = inputs["image_sizes"].tolist()
        pixels = inputs["pixel_values"]
        return [
            EncoderItem({"input": tiles}, (height, width)) for tiles, (height, width) in zip(pixels, sizes, strict=True)
        ]

    @override
    def model_inputs(self, items: Sequence[EncoderItem]) -> dict[str, Tensor]:
        tiles = torch.nn.utils.rnn.pad_sequence([item.inputs["input"] for item in items], batch_first=True)
        return {"pixel_values": tiles, "image_sizes": torch.tensor([item.size for item in items])}

    @override
    def sample(self, shapes: EncoderShapes, count: int, generator: torch.Generator) -> list[EncoderItem]:
        assert shapes.assembly is not None
        height, width = min(shapes.assembly.sizes, key=math.prod)
        tile = [int(str(size)) for size in shapes.item_shape("input")]
        tiles = [shapes.assembly.tiles(height, width), *tile]
        return [EncoderItem({"input": torch.randn(tiles, generator=generator)}, (height, width)) for _ in range(count)]


@frozen(kw_only=True, slots=False)
class LlavaNextModel(LlavaModel):
    """`LlavaNextForConditionalGeneration`."""

    model_type: ClassVar[str] = "llava_next"
    needs_transformers: ClassVar[int] = 5
    preprocessor: ClassVar[Preprocessor] = AssembledPreprocessor()

    @classmethod
    @override
    def encoder(cls, config: Any) -> Encoder:
        encoder = super().encoder(config)
        side, across = pair("image_size", config.vision_config.image_size)
        patch = pair("patch_size", config.vision_config.patch_size)[0]
        if side != across or encoder.rows != (side // patch) ** 2:
            raise CheckpointError(
                f"a tile of {side} by {across} pixels becomes {encoder.rows} embeddings, which are not its patches of "
                f"{patch} pixels in a square",
                remedy="check image_size, patch_size and vision_feature_select_strategy in config.json",
            )
        assembly = Assembly(
            tile=side,
            side=side // patch,
            sizes=[list(size) for size in config.image_grid_pinpoints],
            shrink_above=cls.shrink_above(config),
        )
        return evolve(encoder, assembly=assembly)

    @classmethod
    def shrink_above(cls, config: Any) -> int | None:
        """Tiles whose embeddings an image has at most, about; None for any number."""
        del config

    @classmethod
    @override
    def most_tiles(cls, config: Any, processor: Mapping[str, Any]) -> int:
        sizes = [list(size) for size in config.image_grid_pinpoints]
        stated = processor.get("image_grid_pinpoints", sizes)
        if [list(size) for size in stated] != sizes:
            raise CheckpointError(
                f"image_grid_pinpoints is {stated} for the processor and {sizes} in config.json",
                remedy="give both the same sizes",
            )
        return max(map(math.prod, sizes)) // config.vision_config.image_size**2 + 1


@frozen(kw_only=True, slots=False)
class LlavaNextVideoModel(LlavaNextModel):
    """`LlavaNextVideoForConditionalGeneration`, without videos."""

    model_type: ClassVar[str] = "llava_next_video"
