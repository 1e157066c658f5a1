"""Vision tower and connector of Idefics3 for whole tiles: pixels → image embeddings."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override


class Idefics3Features(nn.Module):
    """Vision tower and connector as in `Idefics3ForConditionalGeneration`, for tiles without padding.

    Args:
        vision_model: an `Idefics3VisionTransformer`.
        connector: features of patches → rows of the language model's hidden width.
    Source: transformers, `Idefics3Model.get_image_features`.
    """

    def __init__(self, vision_model: Any, connector: nn.Module) -> None:
        super().__init__()
        self.vision_model = vision_model
        self.connector = connector
        self.register_buffer("positions", patch_positions(vision_model.embeddings, vision_model.config))

    @override
    def forward(self, input: Tensor) -> Tensor:
        """Image embeddings.

        Args:
            input: floating [tiles, channels, height, width], normalised pixels.
        Returns:
            [tiles, rows, width], in the model's dtype.
        """
        parts = self.vision_model.embeddings
        patches = parts.patch_embedding(input).flatten(2).transpose(1, 2)
        hidden = patches + parts.position_embedding(self.positions)
        states = self.vision_model.encoder(inputs_embeds=hidden, attention_mask=None)
        return self.connector(self.vision_model.post_layernorm(states.last_hidden_state))


def patch_positions(embeddings: nn.Module, config: Any) -> Tensor:
    """Positions of the patches of a whole tile, int64 [1, patches], as the module computes them.

    It computes them in a tiny copy, because the weights may be without data.
    """
    tiny = copy.deepcopy(config)
    tiny.hidden_size = 1
    twin: Any = type(embeddings)(tiny)
    seen: list[Tensor] = []
    twin.position_embedding.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    side = tiny.image_size // tiny.patch_size
    with torch.no_grad():
        twin(
            torch.zeros(1, tiny.num_channels, tiny.image_size, tiny.image_size),
            torch.ones(1, side, side, dtype=torch.bool),
        )
    return seen[0]
