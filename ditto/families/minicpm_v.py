"""MiniCPM-V 4.6 and 4.7, and MiniCPM-OCR: slices of any size, windows of patches merged within the tower."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from attrs import evolve, frozen
from torch import Tensor
from typing_extensions import Self, override

from ditto.arguments import DynamicDimension
from ditto.engine import IMAGE_TOKENS
from ditto.errors import CheckpointError
from ditto.families.encoder import Encoder
from ditto.families.native import LimitedSizeModel, NativePreprocessor, by_token, merge_size, number, square_pixels
from ditto.families.preprocessor import Preprocessor
from ditto.runtime.encoding import EncoderItem
from ditto.wrappers.neighbours import MiniCpmFeatures


@frozen
class MiniCpmPreprocessor(NativePreprocessor):
    """Preprocessor of the slices of images, whose patches come row by row in one strip of pixels."""

    row_by_row: ClassVar[bool] = True
    multimodal_rope: ClassVar[bool] = False
    grid_input: ClassVar[str] = "target_sizes"

    @override
    def of_grid(self, grid: Tensor) -> dict[str, Tensor]:
        from transformers.vision_utils import get_vision_nearest_position_ids

        side = number(self.config, "image_size") // number(self.config, "patch_size")
        entries = get_vision_nearest_position_ids(grid[:, 1:], side)
        return {**super().of_grid(grid), "entries": entries[self._order(grid)]}

    @override
    def _rows_and_columns(self, grid: Tensor) -> Tensor:
        rows, columns = grid[0, 1:].tolist()
        places = torch.arange(rows * columns).view(rows, columns, 1)
        for _ in range(int(math.log2(merge_size(self.config)))):  # the windows of the first merger, of the next one
            places = places.unflatten(1, (-1, 2)).unflatten(0, (-1, 2)).transpose(1, 2).flatten(2)
        return torch.stack([places.flatten() // columns, places.flatten() % columns], dim=-1)

    @override
    def items(self, inputs: Mapping[str, Tensor]) -> list[EncoderItem]:
        sizes, side = inputs[self.grid_input].long(), number(self.config, "patch_size")
        patches = inputs["pixel_values"][0].unflatten(-1, (-1, side)).permute(2, 0, 1, 3)
        grids = torch.cat([torch.ones_like(sizes[:, :1]), sizes], dim=1)
        parts = patches.split(sizes.prod(-1).tolist())
        return [self.item(part, grid[None]) for part, grid in zip(parts, grids, strict=True)]

    @override
    def model_inputs(self, items: Sequence[EncoderItem]) -> dict[str, Tensor]:
        patches, grids = zip(*(self.patches(item) for item in items), strict=True)
        strip = torch.cat(patches).permute(1, 2, 0, 3).flatten(2)
        return {"pixel_values": strip[None], self.grid_input: torch.cat(grids)[:, 1:].int()}


@frozen
class CanvasPreprocessor(MiniCpmPreprocessor):
    """The same where tokens have positions on a canvas that the slices of an image share."""

    multimodal_rope: ClassVar[bool] = True


@frozen(kw_only=True, slots=False)
class MiniCpmV46Model(LimitedSizeModel):
    """`MiniCPMV4_6ForConditionalGeneration`.

    The checkpoint's processor limits the size of images and slices.
    """

    model_type: ClassVar[str] = "minicpmv4_6"
    preprocessor: ClassVar[Preprocessor] = MiniCpmPreprocessor()

    @classmethod
    @override
    def encoder(cls, config: Any) -> Encoder:
        vision, mode = config.vision_config, config.downsample_mode
        sides = {*vision.window_kernel_size, *config.merge_kernel_size}
        merges = mode == "4x" or 0 <= vision.insert_layer_id < vision.num_hidden_layers
        if sides != {2} or config.merger_times != 1 or mode not in ("4x", "16x") or not merges:
            raise CheckpointError(
                f"downsample_mode is {mode!r}, insert_layer_id {vision.insert_layer_id}, merger_times "
                f"{config.merger_times}, window_kernel_size {list(vision.window_kernel_size)} and merge_kernel_size "
                f"{list(config.merge_kernel_size)}",
                remedy="use a checkpoint that merges 2 by 2 patches once behind its tower, and in `16x` also within it",
            )
        number(config, "image_size")
        inputs = {"pixel_values": square_pixels(config), "entries": by_token(config)}
        return Encoder(inputs=inputs, module=MiniCpmFeatures)

    @classmethod
    @override
    def most_tiles(cls, config: Any, processor: Mapping[str, Any]) -> int:
        return int(processor.get("max_slice_nums", 9)) + 1 if processor.get("slice_mode", True) else 1

    @property
    def slice_side(self) -> float:
        """Side in tokens of a square slice."""
        config = self.llm.source.config
        resolution = int(self.llm.source.image_processor.get("scale_resolution", 448))
        return resolution / (number(config, "patch_size") * merge_size(config))

    @property
    @override
    def max_image_tokens(self) -> int:
        """Tokens of an image that is not cut into slices, however long its sides are: they are rounded up."""
        return math.ceil(2 * self.slice_side**2)

    @override
    def _sized(self) -> Self:
        tokens, of_slice = self.max_image_tokens, math.ceil((self.slice_side + 1) ** 2)
        rows = max(tokens, of_slice * self.max_tiles) * self.max_images
        return evolve(
            self,
            llm=evolve(self.llm, prompt_rows=rows),
            vision=self.vision.with_dimension(DynamicDimension.up_to(IMAGE_TOKENS, max(tokens, of_slice))),
        )


@frozen(kw_only=True, slots=False)
class MiniCpmV47Model(MiniCpmV46Model):
    """`MiniCPMV4_7ForConditionalGeneration`."""

    model_type: ClassVar[str] = "minicpmv4_7"
    preprocessor: ClassVar[Preprocessor] = CanvasPreprocessor()


@frozen(kw_only=True, slots=False)
class MiniCpmOcrModel(MiniCpmV46Model):
    """`MiniCPMOcrForConditionalGeneration`."""

    model_type: ClassVar[str] = "minicpm_ocr"
