"""Towers of Gemma 4: patches of one image and their positions → image embeddings.

T image tokens, U patches that become one token.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding
from typing_extensions import override

from ditto.wrappers.features import features_owner
from ditto.wrappers.native import NativeFeatures


class Gemma4Features(NativeFeatures):
    """Gemma 4's tower, which gives each token the mean of its patches, and the embedder behind it."""

    tower_name = "vision_tower"
    projector_name = "embed_vision"

    @override
    def forward(self, pixel_values: Tensor, position_ids: Tensor) -> Tensor:
        """Image embeddings, as in `NativeFeatures`."""
        tower, unit = self.tower, pixel_values.shape[1]
        embedder, encoder = tower.patch_embedder, tower.encoder
        patches = embedder.input_proj(2 * (pixel_values.flatten(0, 1) - 0.5))
        rows, columns = position_ids.flatten(0, 1).unbind(-1)
        tables = embedder.position_embedding_table
        hidden = (patches + (embedding(columns, tables[0]) + embedding(rows, tables[1])))[None]
        places = torch.stack([columns, rows], dim=-1)[None]
        positions = encoder.rotary_emb(hidden, places)
        for layer in encoder.layers[: encoder.config.num_hidden_layers]:
            hidden = layer(hidden, position_embeddings=positions, attention_mask=None, position_ids=places)
        means = hidden[0].unflatten(0, (-1, unit)).float().mean(dim=1).to(hidden.dtype)
        pooled = means.float() * tower.pooler.root_hidden_size
        if tower.config.standardize:
            pooled = (pooled - tower.std_bias.float()) * tower.std_scale.float()
        return self.projector(inputs_embeds=pooled.to(hidden.dtype))


class Gemma4UnifiedFeatures(nn.Module):
    """Embedder of patches of a model without a tower, each of which becomes a token.

    Args:
        model: a `Gemma4UnifiedForConditionalGeneration`.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        owner: Any = features_owner(model)
        self.embedder = owner.embed_vision

    @override
    def forward(self, pixel_values: Tensor, position_ids: Tensor) -> Tensor:
        """Image embeddings.

        Args:
            pixel_values: floating [T, 1, values], patches.
            position_ids: int32 [T, 1, 2], row and column of each patch.
        Returns:
            [T, width], in the model's dtype.
        """
        part, tables = self.embedder, self.embedder.pos_embedding
        hidden = part.patch_ln2(part.patch_dense(part.patch_ln1(pixel_values.flatten(0, 1))))
        rows, columns = position_ids.flatten(0, 1).unbind(-1)
        places = embedding(columns, tables[:, 0]) + embedding(rows, tables[:, 1])
        return part.multimodal_embedder(part.pos_norm(hidden + places))
