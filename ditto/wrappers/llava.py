"""Vision tower and projector of LLaVA: pixels → image embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from ditto.wrappers.features import features_owner


class LlavaVisionWrapper(nn.Module):
    """Vision tower and projector as in `LlavaForConditionalGeneration`.

    Args:
        vision_tower: pixels → an object with `hidden_states`.
        multi_modal_projector: features of the selected layers → rows of the language model's hidden width.
        feature_layer: index of the hidden states, one or several (concatenated along the width).
        select_strategy: `default` drops the first token (CLS), `full` keeps all.
    Source: transformers, `LlavaModel.get_image_features`.
    """

    def __init__(
        self,
        vision_tower: nn.Module,
        multi_modal_projector: nn.Module,
        feature_layer: int | Sequence[int],
        select_strategy: str,
    ) -> None:
        super().__init__()
        self.vision_tower = vision_tower
        self.multi_modal_projector = multi_modal_projector
        self.feature_layers = [feature_layer] if isinstance(feature_layer, int) else list(feature_layer)
        self.first = 1 if select_strategy == "default" else 0

    @override
    def forward(self, input: Tensor) -> Tensor:
        """Image embeddings.

        Args:
            input: floating [images, channels, height, width], normalised pixels.
        Returns:
            [images, tokens, width], in the model's dtype.
        """
        states = self.vision_tower(input, output_hidden_states=True).hidden_states
        chosen = [states[layer][:, self.first :] for layer in self.feature_layers]
        return self.multi_modal_projector(torch.cat(chosen, dim=-1) if len(chosen) > 1 else chosen[0])


class LayerwiseFeatures(nn.Module):
    """Vision tower of Granite 4 Vision, with a projector for each layer of the decoder that gets embeddings.

    Args:
        model: a model of transformers with such a tower.
    Source: transformers, `Granite4VisionModel.get_image_features`.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        owner: Any = features_owner(model)
        config = owner.config
        self.vision_tower = owner.vision_tower
        spatial = list(owner.spatial_projectors)[: len(config.spatial_target_layers)]
        self.projectors = nn.ModuleList([*owner.layerwise_projectors, *spatial])
        self.layers = [layer for layer, _ in config.deepstack_layer_map] + [config.spatial_vision_layer] * len(spatial)
        self.first = 1 if config.vision_feature_select_strategy == "default" else 0

    @override
    def forward(self, input: Tensor) -> Tensor:
        """Image embeddings.

        Args:
            input: floating [tiles, channels, height, width], normalised pixels.
        Returns:
            [tiles, rows, layers * width], in the model's dtype.
        """
        states = self.vision_tower(input, output_hidden_states=True).hidden_states
        pairs = zip(self.projectors, self.layers, strict=True)
        return torch.cat([project(states[layer][:, self.first :]) for project, layer in pairs], dim=-1)
