"""Pixtral's vision tower, captured on the patches of one image.

T image tokens, U patches that become one token. Patches of a token follow each other; all patches attend to each other.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from ditto.wrappers.features import features_owner


class PixtralFeatures(nn.Module):
    """Pixtral's tower, and a projector that takes patches as they are.

    Args:
        model: a model of transformers with such a tower.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        owner: Any = features_owner(model)
        self.tower, self.projector = self._parts(owner)
        layers = getattr(owner.config, "vision_feature_layer", -1)
        self.layers = [layers] if isinstance(layers, int) else list(layers)

    def _parts(self, owner: Any) -> tuple[Any, Any]:
        return owner.vision_tower, owner.multi_modal_projector

    @override
    def forward(self, pixel_values: Tensor, position_ids: Tensor) -> Tensor:
        """Image embeddings.

        Args:
            pixel_values: floating [T, U, channels, height, width], normalised patches.
            position_ids: int32 [T, U, 2], row and column of each patch.
        Returns:
            [T, width], in the model's dtype.
        """
        tower = self.tower
        hidden = tower.ln_pre(tower.patch_conv(pixel_values.flatten(0, 1)).flatten(1)[None])
        positions = tower.patch_positional_embedding(hidden, position_ids.flatten(0, 1))
        states = [hidden]
        for layer in tower.transformer.layers:
            states.append(layer(states[-1], None, position_embeddings=positions))
        chosen = torch.cat([states[index] for index in self.layers], dim=-1)
        return self._projected(chosen[0].unflatten(0, (-1, pixel_values.shape[1])))

    def _projected(self, patches: Tensor) -> Tensor:
        """Embeddings [T, width] from the selected states of the patches [T, U, width]."""
        return self.projector(patches.flatten(0, 1))


class MergedPixtralFeatures(PixtralFeatures):
    """The same with a projector that first merges the patches of each token (Mistral 3)."""

    @override
    def _projected(self, patches: Tensor) -> Tensor:
        projector = self.projector
        # As `unfold` orders them: the patches' values of each channel after each other.
        merged = projector.norm(patches).transpose(1, 2).flatten(1)
        hidden = projector.patch_merger.merging_layer(merged)
        return projector.linear_2(projector.act(projector.linear_1(hidden)))


class LightOnFeatures(MergedPixtralFeatures):
    """The same under other names, and always of the last layer (LightOnOCR)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.layers = [-1]

    @override
    def _parts(self, owner: Any) -> tuple[Any, Any]:
        return owner.vision_encoder, owner.vision_projection
