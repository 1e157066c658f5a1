"""A model's own code for image embeddings, as a module."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override


class ImageFeatures(nn.Module):
    """The `get_image_features` of a vision-language model: pixels → image embeddings.

    Args:
        model: a model of transformers; the embeddings are those that its forward puts in place of image tokens.
        given: arguments of `get_image_features` other than the pixels.
    """

    def __init__(self, model: nn.Module, **given: Any) -> None:
        super().__init__()
        self.parts = without(features_owner(model), "language_model", "lm_head")
        self.given = given

    @override
    def forward(self, input: Tensor) -> Tensor:
        """Image embeddings.

        Args:
            input: floating [tiles, channels, height, width], normalised pixels.
        Returns:
            [tiles, rows, width], in the model's dtype.
        """
        parts: Any = self.parts
        return pooled(parts.get_image_features(pixel_values=input, **self.given))


class PromptedImageFeatures(ImageFeatures):
    """The same for a model whose Q-Former reads the prompt, too."""

    @override
    def forward(self, input: Tensor, prompt_ids: Tensor) -> Tensor:  # type: ignore[override]
        """Image embeddings, as in `ImageFeatures`.

        Args:
            prompt_ids: int32 [images, tokens], the prompt in the Q-Former's own tokens; -1 behind its end.
        """
        parts: Any = self.parts
        tokens = {"qformer_input_ids": prompt_ids.clamp(min=0), "qformer_attention_mask": (prompt_ids >= 0).long()}
        return pooled(parts.get_image_features(input, **tokens, **self.given))


class GroupedImageFeatures(ImageFeatures):
    """The same for a model whose pixels have one more axis in front, which groups the tiles of an image."""

    @override
    def forward(self, input: Tensor) -> Tensor:
        """Image embeddings, as in `ImageFeatures`."""
        return super().forward(input[None])


class HighResolutionFeatures(ImageFeatures):
    """The same for a model with another tower, of the same image in high resolution."""

    @override
    def forward(self, input: Tensor, high_resolution: Tensor) -> Tensor:  # type: ignore[override]
        """Image embeddings, as in `ImageFeatures`.

        Args:
            input: floating [images, channels, height, width], normalised pixels.
            high_resolution: floating, as `input` with more pixels.
        """
        parts: Any = self.parts
        return pooled(parts.get_image_features(input, high_resolution, **self.given))


def features_owner(model: nn.Module) -> nn.Module:
    """The module whose `get_image_features` does the work: since transformers 5 one level below the model."""
    inner: Any = getattr(model, "model", model)
    return inner if hasattr(inner, "get_image_features") else model


def image_newline(model: nn.Module) -> nn.Parameter:
    """The embedding that ends a row of an image of tiles: [width]."""
    owner: Any = features_owner(model)
    return owner.image_newline


def pooled(found: Any) -> Any:
    """Image embeddings from a result of `get_image_features`: since transformers 5 it also holds other tensors."""
    return getattr(found, "pooler_output", found)


def embeddings(found: Any) -> Tensor:
    """Image embeddings [rows, width] from a result of `get_image_features`: a tensor, or one of each image."""
    parts = pooled(found)
    return torch.cat([part.flatten(0, -2) for part in ([parts] if isinstance(parts, Tensor) else parts)])


def without(module: nn.Module, *names: str) -> nn.Module:
    """A copy of a module that shares its submodules, except those of these names."""
    copied = copy.copy(module)
    kept = {name: part for name, part in module._modules.items() if name not in names}
    object.__setattr__(copied, "_modules", kept)
    return copied
