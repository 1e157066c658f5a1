"""PaddleOCR-VL: images in native size, interpolated position embeddings, multimodal rope."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from attrs import frozen
from torch import Tensor
from typing_extensions import override

from ditto.families.encoder import Encoder
from ditto.families.native import NativeSizeModel, by_token, number
from ditto.families.preprocessor import Preprocessor
from ditto.families.qwen3_vl import InterpolatingPreprocessor, interpolated
from ditto.runtime.encoding import EncoderItem
from ditto.wrappers.native import PaddleOcrFeatures


@frozen
class PaddleOcrVlPreprocessor(InterpolatingPreprocessor):
    """Preprocessor of patches that come row by row; the engine gets those of a token after each other."""

    @override
    def item(self, patches: Tensor, grid: Tensor) -> EncoderItem:
        return super().item(patches[self._order(grid)], grid)

    @override
    def model_inputs(self, items: Sequence[EncoderItem]) -> dict[str, Tensor]:
        found = super().model_inputs(items)
        grids = found["image_grid_thw"]
        parts = zip(found["pixel_values"].split(grids.prod(-1).tolist()), grids, strict=True)
        row_by_row = [patches[self._order(grid[None]).argsort()] for patches, grid in parts]
        return {**found, "pixel_values": torch.cat(row_by_row)}

    def _order(self, grid: Tensor) -> Tensor:
        """The patch in each place of the engine's input: int64 [patches]."""
        rows, columns = self.of_grid(grid)["position_ids"].unbind(-1)
        return rows * grid[0, 2] + columns


@frozen(kw_only=True, slots=False)
class PaddleOcrVlModel(NativeSizeModel):
    """`PaddleOCRVLForConditionalGeneration`."""

    model_type: ClassVar[str] = "paddleocr_vl"
    preprocessor: ClassVar[Preprocessor] = PaddleOcrVlPreprocessor()

    @classmethod
    @override
    def encoder(cls, config: Any) -> Encoder:
        patch = number(config, "patch_size")
        pixels = by_token(config, number(config, "num_channels"), patch, patch, dtype=torch.float16)
        return Encoder(inputs={"pixel_values": pixels, **interpolated(config, taps=4)}, module=PaddleOcrFeatures)
