"""PaliGemma and PaliGemma 2: one embedding for each patch; the whole prompt sees itself in both directions."""

from __future__ import annotations

from typing import Any, ClassVar

from attrs import frozen
from typing_extensions import override

from ditto.families.encoder import Encoder, square_tiles
from ditto.families.multimodal import MultimodalModel
from ditto.families.preprocessor import Preprocessor, TilePreprocessor
from ditto.ops.spans import SpanRule
from ditto.wrappers.features import ImageFeatures


@frozen
class PaliGemmaPreprocessor(TilePreprocessor):
    """Preprocessor of prompts that begin with images; the processor ends them with a line break.

    The model counts positions from 1, which makes no difference: rope depends on distances alone.
    """

    needs_image: ClassVar[bool] = True
    spans: ClassVar[SpanRule | None] = SpanRule("token_type_ids", cover="prompt", marked=0)


@frozen(kw_only=True, slots=False)
class PaliGemmaModel(MultimodalModel):
    """`PaliGemmaForConditionalGeneration`."""

    model_type: ClassVar[str] = "paligemma"
    preprocessor: ClassVar[Preprocessor] = PaliGemmaPreprocessor()

    @classmethod
    @override
    def encoder(cls, config: Any) -> Encoder:
        return square_tiles(config.vision_config, ImageFeatures)
