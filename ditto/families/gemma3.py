"""Gemma 3: patches pooled to fewer image tokens, which attend to each other in both directions."""

from __future__ import annotations

from typing import Any, ClassVar

from attrs import frozen
from typing_extensions import override

from ditto.families.encoder import Encoder, tile
from ditto.families.multimodal import MultimodalModel
from ditto.families.preprocessor import Preprocessor, TilePreprocessor
from ditto.ops.spans import SpanRule
from ditto.wrappers.features import ImageFeatures


@frozen
class Gemma3Preprocessor(TilePreprocessor):
    """Preprocessor whose placeholder, the token before an image, is not the image token.

    An image is one tile: transformers cuts out further ones (pan-and-scan) only where a call asks for it, whatever the
    checkpoint says.
    """

    spans: ClassVar[SpanRule | None] = SpanRule("token_type_ids", cover="image")

    @override
    def placeholder(self, processor: Any) -> str:
        return str(processor.boi_token)

    @override
    def image_token_id(self, processor: Any) -> int | None:
        return int(processor.tokenizer.image_token_id)


@frozen(kw_only=True, slots=False)
class Gemma3Model(MultimodalModel):
    """`Gemma3ForConditionalGeneration`."""

    model_type: ClassVar[str] = "gemma3"
    preprocessor: ClassVar[Preprocessor] = Gemma3Preprocessor()

    @classmethod
    @override
    def encoder(cls, config: Any) -> Encoder:
        side = config.vision_config.image_size
        return Encoder(
            inputs={"input": tile(config.vision_config.num_channels, side, side)},
            module=ImageFeatures,
            rows=config.mm_tokens_per_image,
        )
