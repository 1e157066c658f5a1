"""Granite 4 Vision: images assembled from tiles, whose embeddings are added before layers of the decoder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from attrs import evolve, frozen
from torch import Tensor
from typing_extensions import override

from ditto.errors import CheckpointError
from ditto.families.encoder import Encoder
from ditto.families.llava_next import LlavaNextModel
from ditto.wrappers.features import features_owner
from ditto.wrappers.llava import LayerwiseFeatures
from ditto.wrappers.llm import layers_with_rows


@frozen(kw_only=True, slots=False)
class Granite4VisionModel(LlavaNextModel):
    """`Granite4VisionForConditionalGeneration`."""

    model_type: ClassVar[str] = "granite4_vision"

    @classmethod
    @override
    def variant(cls, config: Any) -> Any:
        del config
        return cls

    @classmethod
    @override
    def encoder(cls, config: Any) -> Encoder:
        encoder = super().encoder(config)
        assert encoder.assembly is not None
        layers_with_rows(config)
        _check_layers(config)
        side = _side(config, encoder.assembly.side)
        return evolve(
            encoder,
            module=LayerwiseFeatures,
            rows=side**2,
            assembly=evolve(encoder.assembly, side=side),
        )

    @classmethod
    @override
    def features(cls, model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        owner: Any = features_owner(model)
        found = owner.get_image_features(**inputs)
        return torch.cat([torch.cat(list(images)) for _, images in found.deepstack_features], dim=-1)


def _side(config: Any, patches: int) -> int:
    """Embeddings along a side of a tile.

    Args:
        patches: patches along it.
    Raises:
        CheckpointError: windows do not fill the tile, or the projectors of single patches halve it otherwise.
    """
    stated = str(config.downsample_rate)
    if re.fullmatch(r"[1-9]\d*/[1-9]\d*", stated):
        query, window = map(int, stated.split("/"))
        side = patches // window * query
        if not patches % window and (not config.spatial_target_layers or 2 * side == patches):
            return side
    raise CheckpointError(
        f"downsample_rate is {stated!r} for {patches} patches along a side of a tile",
        remedy="give a fraction whose denominator divides them in config.json; with spatial_target_layers, one half",
    )


def _check_layers(config: Any) -> None:
    """Check that the tower and the projectors have what is added before layers of the decoder.

    Raises:
        CheckpointError: they do not.
    """
    count = config.vision_config.num_hidden_layers
    layers = [*(layer for layer, _ in config.deepstack_layer_map), config.spatial_vision_layer]
    if not all(-count - 1 <= layer <= count for layer in layers):
        raise CheckpointError(
            f"deepstack_layer_map and spatial_vision_layer take layers {layers}, the tower has {count} layers",
            remedy=f"give some from {-count - 1} to {count} in config.json",
        )
    if len(config.spatial_target_layers) > 4:
        raise CheckpointError(
            f"spatial_target_layers is {config.spatial_target_layers}, and there are 4 projectors for them",
            remedy="give at most 4 in config.json",
        )
