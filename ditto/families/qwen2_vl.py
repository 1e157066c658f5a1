"""Qwen2-VL, Qwen2.5-VL and models with their towers: images in native size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from attrs import frozen
from torch import Tensor
from typing_extensions import override

from ditto.arguments import DynamicDimension, TensorTypeHint
from ditto.engine import IMAGE_TOKENS
from ditto.errors import CheckpointError, PromptError
from ditto.families.encoder import Encoder
from ditto.families.native import (
    NativePreprocessor,
    NativeSizeModel,
    by_token,
    merge_size,
    number,
    pixels,
)
from ditto.families.preprocessor import Preprocessor
from ditto.runtime.encoding import EncoderItem, TokenPositions
from ditto.wrappers.native import NativeFeatures, ProjectedWindowFeatures, WindowFeatures


@frozen(kw_only=True, slots=False)
class Qwen2VlModel(NativeSizeModel):
    """`Qwen2VLForConditionalGeneration`."""

    model_type: ClassVar[str] = "qwen2_vl"
    preprocessor: ClassVar[Preprocessor] = NativePreprocessor()

    @classmethod
    @override
    def encoder(cls, config: Any) -> Encoder:
        inputs = {"pixel_values": pixels(config), "position_ids": by_token(config, 2)}
        return Encoder(inputs=inputs, module=NativeFeatures)


@frozen
class WindowPreprocessor(NativePreprocessor):
    """Preprocessor for a tower with windows: the tokens of a window after each other."""

    def window_size(self) -> int:
        """Side of a window in pixels."""
        return number(self.config, "window_size")

    @override
    def item(self, patches: Tensor, grid: Tensor) -> EncoderItem:
        from transformers.vision_utils import get_vision_window_index

        config = self.config
        sizes = (merge_size(config), self.window_size(), number(config, "patch_size"))
        chosen, boundaries = get_vision_window_index(grid, *sizes)
        starts = torch.arange(len(chosen)) * merge_size(config) ** 2
        windows = torch.bucketize(starts, boundaries[1:], right=True)
        inputs = super().item(patches, grid).inputs
        in_windows = {name: tensor[chosen] for name, tensor in inputs.items()}
        return EncoderItem({**in_windows, "windows": windows.int(), "order": chosen.argsort().int()})

    @override
    def patches(self, item: EncoderItem) -> tuple[Tensor, Tensor]:
        return super().patches(EncoderItem(_in_order(item.inputs)))


@frozen(kw_only=True, slots=False)
class Qwen25VlModel(Qwen2VlModel):
    """`Qwen2_5_VLForConditionalGeneration`."""

    model_type: ClassVar[str] = "qwen2_5_vl"
    preprocessor: ClassVar[Preprocessor] = WindowPreprocessor()
    module: ClassVar[type[WindowFeatures]] = WindowFeatures

    @classmethod
    @override
    def encoder(cls, config: Any) -> Encoder:
        return Encoder(inputs={**super().encoder(config).inputs, **windowed()}, module=cls.module)


@frozen
class OmniPreprocessor(WindowPreprocessor):
    """The same for a model whose own positions ask for the tokens around an image."""

    next_type: ClassVar[int] = 1

    @override
    def placeholder(self, processor: Any) -> str:
        return f"{processor.vision_bos_token}{processor.image_token}{processor.vision_eos_token}"

    @override
    def configured(self, directory: str | Path | None) -> NativePreprocessor:
        found = super().configured(directory)
        if found.model is not None:
            found.model.spatial_merge_size = merge_size(found.config)
        return found

    @override
    def token_inputs(self, is_image: Tensor) -> dict[str, Tensor]:
        return {"attention_mask": torch.ones_like(is_image).long()}  # without it, the model places images as text

    @override
    def positions(self, token_ids: Sequence[int], inputs: Mapping[str, Tensor]) -> TokenPositions | None:
        if self.grid_input in inputs:
            self._check(list(token_ids))
        return super().positions(token_ids, inputs)

    def _check(self, ids: Sequence[int]) -> None:
        """Check that the model's own positions are those of the images.

        Raises:
            PromptError: the model would count an audio, or miss an image or the token behind it.
        """
        config = self.config
        if config.audio_start_token_id in ids:
            raise PromptError("the prompt has a place for audio", remedy="leave it out: engines take text and images")
        start, image = config.vision_start_token_id, config.image_token_id
        before = [last for last, token in zip([None, *ids], ids) if token == image and last != image]
        # Without any start the model's positions are those of text.
        if start in ids and (ids[-1] in (start, image) or any(last != start for last in before)):
            raise PromptError(
                "an image stands without the tokens around it, by which the model finds it",
                remedy="write the tokens before and behind each image, as the chat template does",
            )

    @override
    def reserved(self) -> frozenset[int]:
        return frozenset({self.config.audio_start_token_id, self.config.vision_start_token_id})


@frozen(kw_only=True, slots=False)
class Qwen25OmniModel(Qwen25VlModel):
    """`Qwen2_5OmniThinkerForConditionalGeneration`, for images and text."""

    model_type: ClassVar[str] = "qwen2_5_omni_thinker"
    preprocessor: ClassVar[Preprocessor] = OmniPreprocessor()


@frozen
class PlainWindowPreprocessor(WindowPreprocessor):
    """The same for a language model whose tokens have one position each."""

    multimodal_rope: ClassVar[bool] = False


@frozen(kw_only=True, slots=False)
class Exaone45Model(Qwen25VlModel):
    """`Exaone4_5_ForConditionalGeneration`."""

    model_type: ClassVar[str] = "exaone4_5"
    preprocessor: ClassVar[Preprocessor] = PlainWindowPreprocessor()


@frozen(kw_only=True, slots=False)
class HyperClovaXVisionModel(Qwen25VlModel):
    """`HyperCLOVAXVisionV2ForConditionalGeneration`."""

    model_type: ClassVar[str] = "hyperclovax_vision_v2"
    preprocessor: ClassVar[Preprocessor] = PlainWindowPreprocessor()
    module: ClassVar[type[WindowFeatures]] = ProjectedWindowFeatures

    @classmethod
    @override
    def encoder(cls, config: Any) -> Encoder:
        tower = config.vision_config.model_type
        if tower != "qwen2_5_vl_vision":
            raise CheckpointError(
                f"its tower is {tower!r}, not 'qwen2_5_vl_vision'", remedy="use a model with the tower of Qwen2.5-VL"
            )
        return super().encoder(config)


def windowed() -> dict[str, TensorTypeHint]:
    """Inputs of a tower with windows: the window of each token, and its place among those in windows."""
    of_token = TensorTypeHint((DynamicDimension.up_to(IMAGE_TOKENS, 2),), torch.int32)
    return {"windows": of_token, "order": of_token}


def _in_order(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of an image with its tokens row by row."""
    return {name: inputs[name][inputs["order"]] for name in ("pixel_values", "position_ids")}
