"""Towers of images that come as a view of the whole image and as tiles of another size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from ditto.wrappers.features import features_owner, without


class ViewFeatures(nn.Module):
    """Vision tower and projector as in `DeepseekOcr2Model.get_image_features`, for one image.

    Args:
        model: a model of transformers with such a tower.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.parts = without(features_owner(model), "language_model")

    @override
    def forward(self, view: Tensor, tiles: Tensor, order: Tensor) -> Tensor:
        """Image embeddings.

        Args:
            view: floating [channels, height, width], the whole image, normalised.
            tiles: floating [tiles, channels, height, width], its tiles.
            order: int32 [R], which rows become embeddings; those of the tiles come first, then those of the view, and
                one that stands behind them.
        Returns:
            [R, width], in the model's dtype.
        """
        parts: Any = self.parts
        rows = [self._encoded(tiles), self._encoded(view[None]), parts.view_separator[None]]
        return torch.cat(rows).index_select(0, order)

    def _encoded(self, pixels: Tensor) -> Tensor:
        """Embeddings of some images of one size: [images * queries, width].

        Patches attend to each other, and queries behind them to all patches and to the queries before.
        """
        parts: Any = self.parts
        tower, encoder = parts.vision_tower, parts.vision_tower.vision_encoder
        patches = tower.sam_encoder(pixels).last_hidden_state.flatten(2).transpose(1, 2)
        count = patches.shape[1]
        small, large = tower.query_768_resolution.weight, tower.query_1024_resolution.weight
        queries = small if count <= small.shape[0] else large
        hidden = torch.cat([patches, queries.expand(pixels.shape[0], -1, -1)], dim=1)
        places = torch.arange(hidden.shape[1])
        seen = (places <= places[:, None]) | (places < count)
        positions = encoder.rotary_emb(hidden, places[None])
        for layer in encoder.layers[: encoder.config.num_hidden_layers]:
            hidden = layer(hidden, attention_mask=seen[None, None], position_embeddings=positions, position_ids=None)
        return parts.multi_modal_projector(encoder.norm(hidden)[:, count:]).flatten(0, 1)
