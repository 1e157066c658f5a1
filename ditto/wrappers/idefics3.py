"""Vision towers and connectors of Idefics2, Idefics3 and Aria: pixels → image embeddings."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from ditto.wrappers.features import features_owner, without


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
        side = vision_model.config.image_size // vision_model.config.patch_size
        whole = torch.ones(1, side, side, dtype=torch.bool)
        self.register_buffer("positions", patch_positions(type(vision_model.embeddings), vision_model.config, whole))

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


class DoclingFeatures(nn.Module):
    """Vision tower and connector of Granite Docling, for its coarse path.

    Args:
        model: a `GraniteDoclingForConditionalGeneration`.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        owner: Any = features_owner(model)
        self.tower: Any = owner.vision_model

    @override
    def forward(self, input: Tensor) -> Tensor:
        """Image embeddings, and further ones for layers of the decoder.

        Args:
            input: floating [tiles, channels, height, width], normalised pixels.
        Returns:
            [tiles, rows, (1 + layers) * width], in the model's dtype.
        """
        features, layers = self.tower.connector(*self.tower.encode(input), fine=False)
        return torch.cat([features, *layers], dim=-1).unflatten(0, (input.shape[0], -1))


class PaddedFeatures(nn.Module):
    """Base class of towers of images that are padded to one size.

    Args:
        model: a model of transformers.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.parts = without(features_owner(model), "language_model", "text_model", "lm_head")

    def _encoded(self, tower: Any, pixels: Tensor, position_ids: Tensor, layers: int) -> tuple[Tensor, Tensor]:
        """Features of the patches after some layers, and whether each is of the image: bool [images, patches]."""
        seen = position_ids >= 0
        patches = tower.embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2)
        hidden = patches + tower.embeddings.position_embedding(position_ids.clamp(min=0))
        mask = seen[:, None, None, :].expand(-1, 1, seen.shape[1], -1)
        for layer in tower.encoder.layers[:layers]:
            hidden = layer(hidden, mask)
        return hidden, seen


class Idefics2Features(PaddedFeatures):
    """Vision tower and connector as in `Idefics2Model.get_image_features`, for images padded to one size."""

    @override
    def forward(self, input: Tensor, position_ids: Tensor) -> Tensor:
        """Image embeddings.

        Args:
            input: floating [images, channels, height, width], normalised pixels.
            position_ids: int32 [images, patches], each patch's row of the position table; -1 for padding.
        Returns:
            [images, latents, width], in the model's dtype.
        """
        parts: Any = self.parts
        tower = parts.vision_model
        hidden, seen = self._encoded(tower, input, position_ids, len(tower.encoder.layers))
        return parts.connector(tower.post_layernorm(hidden), attention_mask=seen)


class AriaFeatures(PaddedFeatures):
    """Vision tower and projector as in `AriaModel.get_image_features`, for images padded to one size."""

    @override
    def forward(self, input: Tensor, position_ids: Tensor) -> Tensor:
        """Image embeddings, as in `Idefics2Features`."""
        parts: Any = self.parts
        tower, layer = parts.vision_tower, parts.config.vision_feature_layer
        layers = layer if layer >= 0 else len(tower.encoder.layers) + 1 + layer
        hidden, seen = self._encoded(tower, input, position_ids, layers)
        return self._projected(parts.multi_modal_projector, hidden, seen)

    def _projected(self, projector: Any, hidden: Tensor, seen: Tensor) -> Tensor:
        """The projector's forward, without torch's module of attention, whose reshapes hide the number of images."""
        cross, count = projector.cross_attn, projector.patch_to_query_dict[hidden.shape[1]]
        attention, context = cross.multihead_attn, cross.layer_norm_kv(hidden)
        queries = cross.q_proj(cross.layer_norm(projector.query[:count]))
        sources = (queries[None].expand(hidden.shape[0], -1, -1), cross.k_proj(context), cross.v_proj(context))
        weights, biases = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
        query, key, value = (
            functional.linear(*each).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
            for each in zip(sources, weights, biases, strict=True)
        )
        mask = seen[:, None, None, :].expand(-1, 1, count, -1)
        found = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        latents = cross.linear(attention.out_proj(found.transpose(1, 2).flatten(2)))
        return projector.feed_forward(projector.layer_norm(latents))


def patch_positions(embeddings: type[nn.Module], config: Any, seen: Tensor) -> Tensor:
    """Positions of the patches of an image, int64 [1, patches], as the tower's class computes them.

    It computes them in a tiny module, because its weights may be large or without data.

    Args:
        embeddings: the class of the tower's embeddings.
        config: of the tower.
        seen: bool [1, rows, columns], whether each patch is of the image, or padding.
    """
    tiny = copy.deepcopy(config)
    tiny.hidden_size = 1
    twin: Any = embeddings(tiny)
    found: list[Tensor] = []
    twin.position_embedding.register_forward_pre_hook(lambda module, args: found.append(args[0]))
    height, width = (int(size) * tiny.patch_size for size in seen.shape[1:])
    with torch.no_grad():
        twin(torch.zeros(1, tiny.num_channels, height, width), seen)
    return found[0]
