"""The encoder of a family, as data: what becomes image embeddings, and which module computes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from attrs import frozen
from torch import nn

from ditto.arguments import DynamicDimension, TensorTypeHint
from ditto.engine import Assembly
from ditto.errors import CheckpointError


@frozen(kw_only=True)
class Encoder:
    """What becomes image embeddings, and the module that computes them.

    Args:
        inputs: engine inputs by name, in the order of the module's forward. A first axis `batch` counts tiles.
        module: function from the whole model to the module to capture.
        rows: embeddings of one tile; None if their number depends on the inputs.
        assembly: how the embeddings of tiles become those of an image; None if they are those of an image.
    """

    inputs: Mapping[str, TensorTypeHint]
    module: Callable[[nn.Module], nn.Module]
    rows: int | None = None
    assembly: Assembly | None = None


def tile(channels: int, height: int, width: int) -> TensorTypeHint:
    """Type of pixels that come as tiles of one size: [batch, channels, height, width]."""
    return TensorTypeHint((DynamicDimension.up_to("batch", 1), channels, height, width), torch.float16)


def square_tiles(vision: Any, module: Callable[[nn.Module], nn.Module]) -> Encoder:
    """An encoder of square tiles, each patch of which becomes an embedding.

    Args:
        vision: the tower's configuration.
    """
    return Encoder(
        inputs={"input": tile(vision.num_channels, vision.image_size, vision.image_size)},
        module=module,
        rows=(vision.image_size // vision.patch_size) ** 2,
    )


def tiles_and_view(processor: Mapping[str, Any]) -> int:
    """Tiles of an image that its processor cuts into at most `max_patches`; the whole image is one more."""
    most = processor.get("max_patches", 12)
    return most + 1 if most > 1 else 1


def pair(name: str, size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width from an image or patch size of one number or two.

    Raises:
        CheckpointError: the size is neither.
    """
    if isinstance(size, int):
        return size, size
    if len(size) == 2:
        return size[0], size[1]
    raise CheckpointError(f"`vision_config.{name}` is {size!r}", remedy="give one number, or height and width")
