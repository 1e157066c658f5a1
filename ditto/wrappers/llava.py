"""Vision tower and projector of LLaVA: pixels → image embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from typing_extensions import override


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
