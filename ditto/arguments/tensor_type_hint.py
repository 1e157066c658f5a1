"""Type of an engine input: a shape that may have dynamic dimensions, and a dtype."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from attrs import field, frozen

from ditto.arguments.dynamic_dimension import DynamicDimension
from ditto.errors import ConfigError


def _as_tuple(shape: Sequence[int | DynamicDimension]) -> tuple[int | DynamicDimension, ...]:
    return tuple(shape)


def _is_size(size: object) -> bool:
    return isinstance(size, DynamicDimension) or (isinstance(size, int) and size > 0)


def _is_dtype(dtype: object) -> bool:
    return isinstance(dtype, torch.dtype)


@frozen
class TensorTypeHint:
    """Shape and dtype of an engine input.

    Args:
        shape: sizes, each a positive number or a `DynamicDimension`.
        dtype: a torch dtype.
    Raises:
        ConfigError: a size is neither of these, or the dtype is not a torch dtype.
    """

    shape: tuple[int | DynamicDimension, ...] = field(converter=_as_tuple)
    dtype: torch.dtype

    def __attrs_post_init__(self) -> None:
        for axis, size in enumerate(self.shape):
            if not _is_size(size):
                raise ConfigError(
                    f"axis {axis} of a tensor type hint is {size!r}",
                    remedy="give a positive number or a DynamicDimension",
                )
        if not _is_dtype(self.dtype):
            raise ConfigError(f"{self.dtype!r} is not a torch dtype", remedy="give e.g. torch.float16")

    @property
    def dynamic(self) -> dict[int, DynamicDimension]:
        """The dynamic dimensions by axis."""
        return {axis: size for axis, size in enumerate(self.shape) if isinstance(size, DynamicDimension)}

    def sample_shape(self) -> tuple[int, ...]:
        """A shape for tracing, in which dynamic sizes are at least 2.

        This holds even where only 1 is allowed, because torch.export treats a size of 1 as a constant.
        """
        return tuple(max(2, size.min) if isinstance(size, DynamicDimension) else size for size in self.shape)
