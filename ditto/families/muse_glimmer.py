"""Muse Glimmer: images in native size, windows, interpolated position embeddings."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from attrs import frozen
from torch import Tensor
from typing_extensions import override

from ditto.errors import CheckpointError
from ditto.families.encoder import Encoder
from ditto.families.native import NativeSizeModel, by_token, merge_size, number
from ditto.families.preprocessor import Preprocessor
from ditto.families.qwen2_vl import WindowPreprocessor, windowed
from ditto.families.qwen3_vl import interpolated
from ditto.wrappers.native import MuseGlimmerFeatures


@frozen
class MuseGlimmerPreprocessor(WindowPreprocessor):
    """Preprocessor of patches that come row by row."""

    row_by_row: ClassVar[bool] = True
    multimodal_rope: ClassVar[bool] = False

    @override
    def window_size(self) -> int:
        return number(self.config, "pos_emb_height") * number(self.config, "patch_size")

    @override
    def of_grid(self, grid: Tensor) -> dict[str, Tensor]:
        from transformers.vision_utils import get_vision_interpolation_indices_and_weights

        # The model interpolates for the transposed grid, and takes the result for that of the grid, row by row.
        transposed, side = grid[:, [0, 2, 1]], number(self.config, "pos_emb_height")
        indices, weights = get_vision_interpolation_indices_and_weights(
            transposed, side, "bilinear", False, 1, padding="zeros"
        )
        order = self._order(grid)
        return {**super().of_grid(grid), "interp_indices": indices[order], "interp_weights": weights[order]}


@frozen(kw_only=True, slots=False)
class MuseGlimmerModel(NativeSizeModel):
    """`MuseGlimmerForConditionalGeneration`."""

    model_type: ClassVar[str] = "muse_glimmer"
    preprocessor: ClassVar[Preprocessor] = MuseGlimmerPreprocessor()

    @classmethod
    @override
    def encoder(cls, config: Any) -> Encoder:
        height, width = number(config, "pos_emb_height"), number(config, "pos_emb_width")
        if height != width or height % merge_size(config):
            raise CheckpointError(
                f"its table of positions is {height} by {width}, the side of its windows {height} patches, of which "
                f"{merge_size(config)} become a token",
                remedy="use a model with a square table and windows of whole tokens",
            )
        values = number(config, "patch_temporal") * 3 * number(config, "patch_size") ** 2
        pixels = by_token(config, values, dtype=torch.float16)
        inputs = {"pixel_values": pixels, **interpolated(config, taps=4), **windowed()}
        return Encoder(inputs=inputs, module=MuseGlimmerFeatures)
