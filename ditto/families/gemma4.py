"""Gemma 4: images of any size, patches with positions; in larger models tokens of an image see each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from attrs import frozen
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from typing_extensions import override

from ditto.errors import CheckpointError
from ditto.families.encoder import Encoder
from ditto.families.native import LimitedSizeModel, NativePreprocessor, by_token, merge_size, number
from ditto.families.preprocessor import Preprocessor
from ditto.ops.spans import SpanRule
from ditto.runtime.encoding import EncoderItem
from ditto.wrappers.gemma4 import Gemma4Features, Gemma4UnifiedFeatures
from ditto.wrappers.llm import StandIn


@frozen
class Gemma4Preprocessor(NativePreprocessor):
    """Preprocessor of patches that come row by row, padded, with column and row of each."""

    row_by_row: ClassVar[bool] = True
    multimodal_rope: ClassVar[bool] = False
    grid_input: ClassVar[str] = "image_position_ids"

    @override
    def configured(self, directory: str | Path | None) -> NativePreprocessor:
        found = super().configured(directory)
        if directory is None or not _has_spans(found.config):
            return found
        return Gemma4SpanPreprocessor(found.model)

    @override
    def items(self, inputs: Mapping[str, Tensor]) -> list[EncoderItem]:
        found: list[EncoderItem] = []
        for patches, places in zip(inputs["pixel_values"], inputs[self.grid_input], strict=True):
            seen = places[:, 0] >= 0
            columns, rows = (places.amax(0) + 1).tolist()
            found.append(self.item(patches[seen], torch.tensor([[1, rows, columns]])))
        return found

    @override
    def model_inputs(self, items: Sequence[EncoderItem]) -> dict[str, Tensor]:
        patches, grids = zip(*(self.patches(item) for item in items), strict=True)
        places = [
            torch.cartesian_prod(torch.arange(int(rows)), torch.arange(int(columns))).flip(-1)
            for ((_, rows, columns),) in grids
        ]
        return {
            "pixel_values": pad_sequence(list(patches), batch_first=True),
            self.grid_input: pad_sequence(places, batch_first=True, padding_value=-1),
        }


@frozen
class Gemma4SpanPreprocessor(Gemma4Preprocessor):
    """The same for models whose layers with a window let the tokens of an image see each other."""

    spans: ClassVar[SpanRule | None] = SpanRule("mm_token_type_ids", cover="image")


@frozen(kw_only=True, slots=False)
class Gemma4Model(LimitedSizeModel):
    """`Gemma4ForConditionalGeneration`, without videos and audio."""

    model_type: ClassVar[str] = "gemma4"
    preprocessor: ClassVar[Preprocessor] = Gemma4Preprocessor()
    masks_see_types: ClassVar[bool] = False

    @classmethod
    @override
    def variant(cls, config: Any) -> Any:
        return Gemma4SpanModel if _has_spans(config) else cls

    @classmethod
    @override
    def encoder(cls, config: Any) -> Encoder:
        _check(config)
        values = 3 * number(config, "patch_size") ** 2
        pixels = by_token(config, values, dtype=torch.float16)
        return Encoder(inputs={"pixel_values": pixels, "position_ids": by_token(config, 2)}, module=Gemma4Features)

    @classmethod
    @override
    def stand_in(cls, config: Any) -> StandIn | None:
        tokens = (config.image_token_id, config.video_token_id, config.audio_token_id)
        return StandIn(tuple(token for token in tokens if token is not None), config.text_config.pad_token_id)

    @property
    @override
    def max_image_tokens(self) -> int:
        return int(self.llm.source.image_processor.get("max_soft_tokens", 280))


@frozen(kw_only=True, slots=False)
class Gemma4SpanModel(Gemma4Model):
    """The same where tokens of an image see each other in both directions."""

    preprocessor: ClassVar[Preprocessor] = Gemma4SpanPreprocessor()
    masks_see_types: ClassVar[bool] = True


@frozen(kw_only=True, slots=False)
class Gemma4UnifiedModel(Gemma4Model):
    """`Gemma4UnifiedForConditionalGeneration`, without videos and audio: it has no tower."""

    model_type: ClassVar[str] = "gemma4_unified"

    @classmethod
    @override
    def variant(cls, config: Any) -> Any:
        return Gemma4UnifiedSpanModel if _has_spans(config) else cls

    @classmethod
    @override
    def encoder(cls, config: Any) -> Encoder:
        _check(config)
        values = 3 * number(config, "model_patch_size") ** 2
        pixels = by_token(config, values, dtype=torch.float16)
        inputs = {"pixel_values": pixels, "position_ids": by_token(config, 2)}
        return Encoder(inputs=inputs, module=Gemma4UnifiedFeatures)


@frozen(kw_only=True, slots=False)
class Gemma4UnifiedSpanModel(Gemma4UnifiedModel):
    """The same where tokens of an image see each other in both directions."""

    preprocessor: ClassVar[Preprocessor] = Gemma4SpanPreprocessor()
    masks_see_types: ClassVar[bool] = True


def _has_spans(config: Any) -> bool:
    return config.text_config.use_bidirectional_attention == "vision"


def _check(config: Any) -> None:
    """Check that a model reads images, and generates text.

    Raises:
        CheckpointError: it does not.
    """
    if config.vision_config is None:
        raise CheckpointError("it has no vision_config", remedy="build its language model alone, with LlmBuilder")
    mode = config.text_config.use_bidirectional_attention
    if mode == "all":
        raise CheckpointError(
            "use_bidirectional_attention is 'all': its tokens see those behind them",
            remedy="use a model that generates text",
        )
    merge_size(config)
