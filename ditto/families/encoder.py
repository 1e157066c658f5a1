"""The encoder of a family, as data: what becomes image embeddings, and which module computes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

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
