"""Qwen3-VL and Qwen3.5: images in native size, interpolated position embeddings, deepstack, multimodal rope."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from attrs import frozen
from torch import Tensor
from typing_extensions import override

from ditto.families.encoder import Encoder
from ditto.families.native import NativePreprocessor, NativeSizeModel, by_token, merge_size, number, pixels
from ditto.families.preprocessor import Preprocessor
from ditto.wrappers.features import embeddings, features_owner
from ditto.wrappers.native import DeepstackFeatures, InterpolatedFeatures


@frozen
class InterpolatingPreprocessor(NativePreprocessor):
    """Preprocessor for a tower that interpolates a square table of position embeddings.

    Args:
        mode, align_corners: as in `torch.nn.functional.interpolate`.
    """

    mode: str = "bilinear"
    align_corners: bool = False

    def side(self) -> int:
        """Rows and columns of the table."""
        return number(self.config, "image_size") // number(self.config, "patch_size")

    @override
    def of_grid(self, grid: Tensor) -> dict[str, Tensor]:
        from transformers.vision_utils import get_vision_interpolation_indices_and_weights

        indices, weights = get_vision_interpolation_indices_and_weights(
            grid, self.side(), self.mode, self.align_corners, merge_size(self.config)
        )
        return {**super().of_grid(grid), "interp_indices": indices, "interp_weights": weights}


@frozen
class Qwen3VlPreprocessor(InterpolatingPreprocessor):
    """The same for a table whose number of entries is stated."""

    align_corners: bool = True

    @override
    def side(self) -> int:
        return int(number(self.config, "num_position_embeddings") ** 0.5)


@frozen(kw_only=True, slots=False)
class Qwen3VlModel(NativeSizeModel):
    """`Qwen3VLForConditionalGeneration`."""

    model_type: ClassVar[str] = "qwen3_vl"
    preprocessor: ClassVar[Preprocessor] = Qwen3VlPreprocessor()

    @classmethod
    @override
    def encoder(cls, config: Any) -> Encoder:
        inputs = {"pixel_values": pixels(config), **interpolated(config, taps=4)}
        return Encoder(inputs=inputs, module=DeepstackFeatures)

    @classmethod
    @override
    def features(cls, model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        owner: Any = features_owner(model)
        found = owner.get_image_features(**inputs)
        return torch.cat([embeddings(found), *(torch.cat(list(layer)) for layer in found.deepstack_features)], dim=-1)


def interpolated(config: Any, taps: int) -> dict[str, Any]:
    """Inputs of a tower that interpolates position embeddings: positions, indices and weights."""
    return {
        "position_ids": by_token(config, 2),
        "interp_indices": by_token(config, taps),
        "interp_weights": by_token(config, taps, dtype=torch.float32),
    }


@frozen(kw_only=True, slots=False)
class Qwen3VlMoeModel(Qwen3VlModel):
    """`Qwen3VLMoeForConditionalGeneration`."""

    model_type: ClassVar[str] = "qwen3_vl_moe"


@frozen(kw_only=True, slots=False)
class CohereCompassModel(Qwen3VlModel):
    """`CohereCompassForConditionalGeneration`."""

    model_type: ClassVar[str] = "cohere_compass"


@frozen(kw_only=True, slots=False)
class Qwen35Model(NativeSizeModel):
    """`Qwen3_5ForConditionalGeneration`, without deepstack."""

    model_type: ClassVar[str] = "qwen3_5"
    preprocessor: ClassVar[Preprocessor] = Qwen3VlPreprocessor()

    @classmethod
    @override
    def encoder(cls, config: Any) -> Encoder:
        inputs = {"pixel_values": pixels(config), **interpolated(config, taps=4)}
        return Encoder(inputs=inputs, module=InterpolatedFeatures)


@frozen(kw_only=True, slots=False)
class Qwen35MoeModel(Qwen35Model):
    """`Qwen3_5MoeForConditionalGeneration`."""

    model_type: ClassVar[str] = "qwen3_5_moe"
