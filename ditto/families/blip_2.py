"""BLIP-2 and InstructBLIP: a tower whose patches a Q-Former reads into a fixed number of embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from attrs import frozen
from torch import Tensor, nn
from typing_extensions import override

from ditto.arguments import DynamicDimension, TensorTypeHint
from ditto.errors import CheckpointError, PromptError
from ditto.families.encoder import Encoder, tile
from ditto.families.multimodal import MultimodalModel
from ditto.families.preprocessor import Preprocessor, TilePreprocessor
from ditto.runtime.encoding import EncodedPrompt, EncoderItem, EncoderShapes
from ditto.wrappers.features import ImageFeatures, PromptedImageFeatures


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
                remedy="use a checkpoint with a decoder, e.g. OPT or Vicuna",
            )
        side = config.vision_config.image_size
        return Encoder(inputs={"input": tile(3, side, side)}, module=ImageFeatures, rows=config.num_query_tokens)

    @staticmethod
    @override
    def language_model(model: nn.Module) -> nn.Module:
        parts: Any = model
        return parts.language_model


# Tokens of a prompt that the Q-Former reads at most, as in published checkpoints.
_PROMPT_TOKENS = 512


@frozen
class InstructBlipPreprocessor(Blip2Preprocessor):
    """Preprocessor whose vision engine reads the prompt, in the Q-Former's own tokens."""

    @override
    def items(self, inputs: Mapping[str, Tensor]) -> list[EncoderItem]:
        ids = inputs["qformer_input_ids"][inputs["qformer_attention_mask"].bool()].int()
        if len(ids) > _PROMPT_TOKENS:
            raise PromptError(
                f"the prompt has {len(ids)} tokens of the Q-Former, which reads at most {_PROMPT_TOKENS}",
                remedy="write a shorter prompt",
            )
        prompt = torch.cat([ids, ids.new_full((_PROMPT_TOKENS - len(ids),), -1)])
        return [EncoderItem({"input": pixels, "prompt_ids": prompt}) for pixels in inputs["pixel_values"]]

    @override
    def model_inputs(self, items: Sequence[EncoderItem]) -> dict[str, Tensor]:
        ids = [item.inputs["prompt_ids"] for item in items]
        rows = torch.stack([row[row >= 0] for row in ids]).long()
        named = {"qformer_input_ids": rows, "qformer_attention_mask": torch.ones_like(rows)}
        return {**super().model_inputs(items), **named}

    @override
    def sample(self, shapes: EncoderShapes, count: int, generator: torch.Generator) -> list[EncoderItem]:
        pixels = [item.inputs["input"] for item in super().sample(shapes, count, generator)]
        prompt = torch.full((_PROMPT_TOKENS,), -1, dtype=torch.int32)
        prompt[:4] = 0
        return [EncoderItem({"input": each, "prompt_ids": prompt}) for each in pixels]


@frozen(kw_only=True, slots=False)
class InstructBlipModel(Blip2Model):
    """`InstructBlipForConditionalGeneration` with a decoder, e.g. Vicuna."""

    model_type: ClassVar[str] = "instructblip"
    preprocessor: ClassVar[Preprocessor] = InstructBlipPreprocessor()

    @classmethod
    @override
    def encoder(cls, config: Any) -> Encoder:
        encoder, former = super().encoder(config), config.qformer_config
        if former.max_position_embeddings < _PROMPT_TOKENS:
            raise CheckpointError(
                f"the Q-Former reads prompts of {former.max_position_embeddings} tokens",
                remedy=f"use a checkpoint whose Q-Former reads {_PROMPT_TOKENS}",
            )
        prompt = TensorTypeHint((DynamicDimension.up_to("batch", 1), _PROMPT_TOKENS), torch.int32)
        return Encoder(inputs={**encoder.inputs, "prompt_ids": prompt}, module=PromptedImageFeatures, rows=encoder.rows)
