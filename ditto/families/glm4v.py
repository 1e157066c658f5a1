"""GLM-4.1V, GLM-4.5V, GLM-4.6V and GLM-OCR: images in native size, multimodal rope over a part of each head."""

from __future__ import annotations

from typing import Any, ClassVar

from attrs import frozen
from typing_extensions import override

from ditto.families.encoder import Encoder
from ditto.families.native import NativeSizeModel, pixels
from ditto.families.preprocessor import Preprocessor
from ditto.families.qwen2_vl import Qwen2VlModel
from ditto.families.qwen3_vl import InterpolatingPreprocessor, interpolated
from ditto.wrappers.native import Glm4vFeatures


@frozen(kw_only=True, slots=False)
class Glm4vModel(NativeSizeModel):
    """`Glm4vForConditionalGeneration`."""

    model_type: ClassVar[str] = "glm4v"
    preprocessor: ClassVar[Preprocessor] = InterpolatingPreprocessor(mode="bicubic")

    @classmethod
    @override
    def encoder(cls, config: Any) -> Encoder:
        return Encoder(inputs={"pixel_values": pixels(config), **interpolated(config, taps=16)}, module=Glm4vFeatures)


@frozen(kw_only=True, slots=False)
class Glm4vMoeModel(Glm4vModel):
    """`Glm4vMoeForConditionalGeneration`."""

    model_type: ClassVar[str] = "glm4v_moe"


@frozen(kw_only=True, slots=False)
class Glm46vModel(Glm4vModel):
    """`Glm46VForConditionalGeneration`."""

    model_type: ClassVar[str] = "glm46v"


@frozen(kw_only=True, slots=False)
class GlmgaModel(Glm4vModel):
    """`Glm46VForConditionalGeneration` with another processor."""

    model_type: ClassVar[str] = "glmga"


@frozen(kw_only=True, slots=False)
class GlmOcrModel(Qwen2VlModel):
    """`GlmOcrForConditionalGeneration`, whose tower has no position embeddings but rope."""

    model_type: ClassVar[str] = "glm_ocr"
