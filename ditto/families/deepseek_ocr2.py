"""DeepSeek-OCR 2: a view of the whole image of one size, and tiles of another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from attrs import evolve, frozen
from torch import Tensor
from typing_extensions import Self, override

from ditto.arguments import DynamicDimension, TensorTypeHint
from ditto.engine import IMAGE_TOKENS
from ditto.errors import CheckpointError, ConfigError
from ditto.families.encoder import Encoder, pair
from ditto.families.multimodal import MultimodalModel
from ditto.families.preprocessor import Preprocessor
from ditto.runtime.encoding import EncoderItem, EncoderShapes
from ditto.wrappers.views import ViewFeatures

_TILES = "tiles"
# Queries of the tower along each side of a tile and of a view, each of which reads 4 by 4 patches.
_OF_TILE, _OF_VIEW, _PATCHES = 12, 16, 4
_PER_TILE, _PER_VIEW = _OF_TILE**2, _OF_VIEW**2 + 1  # with the embedding behind the view


@frozen
class DeepseekOcr2Preprocessor(Preprocessor):
    """Preprocessor of images whose tiles are counted; small ones have none, and the engine gets an empty one."""

    @override
    def items(self, inputs: Mapping[str, Tensor]) -> list[EncoderItem]:
        views, counts = inputs["pixel_values"], torch.as_tensor(inputs["num_local_patches"]).tolist()
        tiles = inputs["pixel_values_local"].split(counts) if any(counts) else [None] * len(counts)
        return [_item(*each) for each in zip(views, tiles, strict=True)]

    @override
    def model_inputs(self, items: Sequence[EncoderItem]) -> dict[str, Tensor]:
        counts = [(len(item.inputs["order"]) - _PER_VIEW) // _PER_TILE for item in items]
        found = {
            "pixel_values": torch.stack([item.inputs["view"] for item in items]),
            "num_local_patches": torch.tensor(counts),
        }
        if any(counts):
            tiles = [item.inputs["tiles"] for item, count in zip(items, counts, strict=True) if count]
            found["pixel_values_local"] = torch.cat(tiles)
        return found

    @override
    def sample(self, shapes: EncoderShapes, count: int, generator: torch.Generator) -> list[EncoderItem]:
        view, tile = ([int(str(size)) for size in shapes.inputs[name].shape[-3:]] for name in ("view", "tiles"))
        most = shapes.largest[_TILES]
        return [
            _item(torch.randn(view, generator=generator), torch.randn(most, *tile, generator=generator))
            for _ in range(count)
        ]


def _item(view: Tensor, tiles: Tensor | None) -> EncoderItem:
    """The vision engine's inputs for an image; `tiles` may be empty."""
    first = 0
    if tiles is None or not len(tiles):
        side = view.shape[-1] // _OF_VIEW * _OF_TILE
        tiles, first = view.new_zeros(1, view.shape[0], side, side), _PER_TILE
    order = torch.arange(first, len(tiles) * _PER_TILE + _PER_VIEW)
    return EncoderItem({"view": view, "tiles": tiles, "order": order.int()})


@frozen(kw_only=True, slots=False)
class DeepseekOcr2Model(MultimodalModel):
    """`DeepseekOcr2ForConditionalGeneration`."""

    model_type: ClassVar[str] = "deepseek_ocr2"
    preprocessor: ClassVar[Preprocessor] = DeepseekOcr2Preprocessor()

    @classmethod
    @override
    def encoder(cls, config: Any) -> Encoder:
        channels, (of_view, of_tile) = config.vision_config.sam_config.num_channels, _sides(config)
        tiles = TensorTypeHint((DynamicDimension.up_to(_TILES, 2), channels, of_tile, of_tile), torch.float16)
        inputs = {
            "view": TensorTypeHint((channels, of_view, of_view), torch.float16),
            "tiles": tiles,
            "order": TensorTypeHint((DynamicDimension.up_to(IMAGE_TOKENS, 2),), torch.int32),
        }
        return Encoder(inputs=inputs, module=ViewFeatures)

    @classmethod
    @override
    def most_tiles(cls, config: Any, processor: Mapping[str, Any]) -> int:
        of_view, of_tile = _sides(config)
        size = processor.get("size", {"height": of_view, "width": of_view})
        found = (size.get("height"), size.get("width"), processor.get("tile_size", of_tile))
        if found != (of_view, of_view, of_tile) or not processor.get("crop_to_patches", True):
            raise CheckpointError(
                f"the processor makes views of {found[0]} by {found[1]} pixels and tiles of {found[2]}, "
                f"crop_to_patches is {processor.get('crop_to_patches', True)}; the tower has queries for "
                f"{of_view} and {of_tile} pixels",
                remedy="give the processor these sizes, and let it crop",
            )
        # Its processor asks for up to 6 tiles, whatever the settings of the image processor are.
        return max(int(processor.get("max_patches", 6)), 6) + 1

    @override
    def with_vision_batch(self, maximum: int) -> Self:
        raise ConfigError(
            f"the vision engine of {self.model_type!r} models takes one image in each call", remedy="leave it out"
        )

    @override
    def _sized(self) -> Self:
        tiles = max(self.max_tiles - 1, 1)
        rows = (self.max_tiles - 1) * _PER_TILE + _PER_VIEW
        vision = self.vision.with_dimension(DynamicDimension.up_to(_TILES, tiles))
        return evolve(
            self,
            llm=evolve(self.llm, prompt_rows=rows * self.max_images),
            vision=vision.with_dimension(DynamicDimension.up_to(IMAGE_TOKENS, tiles * _PER_TILE + _PER_VIEW)),
        )


def _sides(config: Any) -> tuple[int, int]:
    """Pixels along each side of a view and of a tile.

    Raises:
        CheckpointError: patches are not square.
    """
    patch, across = pair("sam_config.patch_size", config.vision_config.sam_config.patch_size)
    if patch != across:
        raise CheckpointError(f"patches have {patch} by {across} pixels", remedy="use a model with square patches")
    return _OF_VIEW * _PATCHES * patch, _OF_TILE * _PATCHES * patch
