"""Kimi K2.5: images in native size, interpolated position embeddings."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from attrs import frozen
from typing_extensions import override

from ditto.errors import CheckpointError
from ditto.families.encoder import Encoder
from ditto.families.native import NativeSizeModel, by_token, number
from ditto.families.preprocessor import Preprocessor
from ditto.families.qwen3_vl import InterpolatingPreprocessor, interpolated
from ditto.wrappers.native import KimiFeatures


@frozen
class KimiK25Preprocessor(InterpolatingPreprocessor):
    """Preprocessor of patches that come row by row."""

    row_by_row: ClassVar[bool] = True
    multimodal_rope: ClassVar[bool] = False
    mode: str = "bicubic"

    @override
    def side(self) -> int:
        return number(self.config, "pos_emb_height")


@frozen(kw_only=True, slots=False)
class KimiK25Model(NativeSizeModel):
    """`Kimi_K25ForConditionalGeneration`."""

    model_type: ClassVar[str] = "kimi_k25"
    preprocessor: ClassVar[Preprocessor] = KimiK25Preprocessor()

    @classmethod
    @override
    def encoder(cls, config: Any) -> Encoder:
        height, width = number(config, "pos_emb_height"), number(config, "pos_emb_width")
        if height != width:
            raise CheckpointError(
                f"its table of positions is {height} by {width}, which is not square",
                remedy="use a model with a square table",
            )
        patch = number(config, "patch_size")
        pixels = by_token(config, 3, patch, patch, dtype=torch.float16)
        return Encoder(inputs={"pixel_values": pixels, **interpolated(config, taps=16)}, module=KimiFeatures)
