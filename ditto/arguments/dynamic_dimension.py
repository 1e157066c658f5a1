"""A dimension whose size is chosen at run time."""

from __future__ import annotations

from attrs import frozen

from ditto.errors import ConfigError


@frozen
class DynamicDimension:
    """A named dimension with its minimum, typical and maximum size.

    Args:
        name: a Python identifier; dimensions with the same name always have the same size.
        min: the smallest size, at least 1.
        opt: the typical size, which TensorRT tunes for, between `min` and `max`.
        max: the largest size.
    Raises:
        ConfigError: the name is not an identifier, or 1 <= min <= opt <= max does not hold.
    """

    name: str
    min: int
    opt: int
    max: int

    def __attrs_post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ConfigError(
                f"dynamic dimension name {self.name!r} is not an identifier",
                remedy="use letters, digits and underscores, e.g. `batch`",
            )
        if not 1 <= self.min <= self.opt <= self.max:
            raise ConfigError(
                f"dynamic dimension {self.name!r} needs 1 <= min <= opt <= max, got {self.min}, {self.opt}, {self.max}",
                remedy="give the smallest, the usual and the largest size, in this order",
            )

    @staticmethod
    def up_to(name: str, maximum: int) -> DynamicDimension:
        """A dimension from 1 to `maximum`, tuned for half the maximum, rounded up."""
        return DynamicDimension(name, 1, (maximum + 1) // 2, maximum)
