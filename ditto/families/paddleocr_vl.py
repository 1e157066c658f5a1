"""PaddleOCR-VL: images in native size, interpolated position embeddings, multimodal rope."""

from __future__ import annotations

from typing import Any, ClassVar

from attrs import frozen
from typing_extensions import override

from ditto.families.encoder import Encoder
from ditto.families.native import NativeSizeModel, square_pixels
from ditto.families.preprocessor import Preprocessor
from ditto.families.qwen3_vl import InterpolatingPreprocessor, interpolated
from ditto.wrappers.native import PaddleOcrFeatures


@frozen
class PaddleOcrVlPreprocessor(InterpolatingPreprocessor):
    """Preprocessor of patches that come row by row; the engine gets those of a token after each other."""

    row_by_row: ClassVar[bool] = True


@frozen(kw_only=True, slots=False)
class PaddleOcrVlModel(NativeSizeModel):
    """`PaddleOCRVLForConditionalGeneration`."""

    model_type: ClassVar[str] = "paddleocr_vl"
    preprocessor: ClassVar[Preprocessor] = PaddleOcrVlPreprocessor()

    @classmethod
    @override
    def encoder(cls, config: Any) -> Encoder:
        return Encoder(
            inputs={"pixel_values": square_pixels(config), **interpolated(config, taps=4)}, module=PaddleOcrFeatures
        )
