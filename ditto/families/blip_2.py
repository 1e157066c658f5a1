"""BLIP-2: a tower whose patches a Q-Former reads into a fixed number of embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from attrs import frozen
from torch import nn
from typing_extensions import override

from ditto.errors import CheckpointError, PromptError
from ditto.families.encoder import Encoder, tile
from ditto.families.multimodal import MultimodalModel
from ditto.families.preprocessor import Preprocessor, TilePreprocessor
from ditto.runtime.encoding import EncodedPrompt
from ditto.wrappers.features import ImageFeatures


@frozen
class Blip2Preprocessor(TilePreprocessor):
    """Preprocessor whose processor puts the image tokens before the prompt, by itself."""

    needs_image: ClassVar[bool] = True

    @override
    def encode(
        self, processor: Any, text: str, images: Sequence[Any], *, add_special_tokens: bool = True
    ) -> EncodedPrompt:
        placeholder = self.placeholder(processor)
        if len(images) != 1 or not text.startswith(placeholder):
            raise PromptError(
                f"the model takes one image before each prompt; here are {len(images)} images",
                remedy=f"write {placeholder} once, at the beginning of each prompt",
            )
        text = text.removeprefix(placeholder)
        return super().encode(processor, text, images, add_special_tokens=add_special_tokens)


@frozen(kw_only=True, slots=False)
class Blip2Model(MultimodalModel):
    """`Blip2ForConditionalGeneration` with a decoder, e.g. OPT."""

    model_type: ClassVar[str] = "blip-2"
    preprocessor: ClassVar[Preprocessor] = Blip2Preprocessor()

    @classmethod
    @override
    def encoder(cls, config: Any) -> Encoder:
        if not config.use_decoder_only_language_model:
            raise CheckpointError(
                f"its language model {config.text_config.model_type!r} is an encoder-decoder",
                remedy="use a BLIP-2 with a decoder, e.g. OPT",
            )
        side = config.vision_config.image_size
        return Encoder(inputs={"input": tile(3, side, side)}, module=ImageFeatures, rows=config.num_query_tokens)

    @staticmethod
    @override
    def language_model(model: nn.Module) -> nn.Module:
        parts: Any = model
        return parts.language_model
