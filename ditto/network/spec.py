"""What is known of a tensor before it exists: shape and dtype."""

from __future__ import annotations

import torch
from attrs import evolve, frozen
from typing_extensions import override

from ditto.errors import ShapeError
from ditto.network.dims import Dim, DimExpr, parse, product

FLOATING = (torch.float32, torch.float16, torch.bfloat16)
INTEGRAL = (torch.int64, torch.int32)  # int8 is for quantized weights: TensorRT takes no index of it


@frozen
class Spec:
    """Shape (numbers and named dimensions) and dtype of a tensor."""

    shape: tuple[Dim, ...]
    dtype: torch.dtype

    @staticmethod
    def of(tensor: torch.Tensor) -> Spec:
        """The spec of a real tensor."""
        return Spec(tuple(tensor.shape), tensor.dtype)

    @staticmethod
    def parse(text: str) -> Spec:
        """The inverse of `str`.

        Raises:
            ValueError, ShapeError: anything else.
        """
        dtype, _, rest = text.partition("[")
        sizes = tuple(parse(part) for part in rest.removesuffix("]").split(",") if part.strip())
        return Spec(sizes, dtype_named(dtype))

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def is_static(self) -> bool:
        return not any(isinstance(dim, DimExpr) for dim in self.shape)

    @property
    def numel(self) -> Dim:
        return product(self.shape)

    def floating(self) -> Spec:
        """Itself.

        Raises:
            ShapeError: the dtype is not a floating one.
        """
        if self.dtype not in FLOATING:
            raise ShapeError(f"needs a floating dtype, got {self}")
        return self

    def integral(self) -> Spec:
        """Itself.

        Raises:
            ShapeError: the dtype is not an integer one.
        """
        if self.dtype not in INTEGRAL:
            raise ShapeError(f"needs an integer dtype, got {self}")
        return self

    def of_rank(self, *ranks: int) -> Spec:
        """Itself.

        Raises:
            ShapeError: the rank is none of `ranks`.
        """
        if self.rank not in ranks:
            raise ShapeError(f"needs rank {' or '.join(map(str, ranks))}, got {self}")
        return self

    def with_shape(self, shape: tuple[Dim, ...]) -> Spec:
        return evolve(self, shape=shape)

    def with_dtype(self, dtype: torch.dtype) -> Spec:
        return evolve(self, dtype=dtype)

    @override
    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')}[{', '.join(map(str, self.shape))}]"


def dtype_named(name: str) -> torch.dtype:
    """The dtype of that name, e.g. `float16`.

    Raises:
        ValueError: there is none.
    """
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{name!r} is no dtype")
    return dtype


def same_dtype(*specs: Spec) -> torch.dtype:
    """The dtype that all have.

    Raises:
        ShapeError: they differ.
    """
    if len({spec.dtype for spec in specs}) != 1:
        raise ShapeError(f"needs equal dtypes, got {' and '.join(map(str, specs))}")
    return specs[0].dtype


def broadcast(*shapes: tuple[Dim, ...]) -> tuple[Dim, ...]:
    """The shape that shapes of equal rank broadcast to: per axis equal sizes, or 1.

    Raises:
        ShapeError: ranks or sizes differ.
    """
    if len({len(shape) for shape in shapes}) != 1:
        raise ShapeError(f"needs equal ranks to broadcast, got {' and '.join(_text(shape) for shape in shapes)}")
    result: list[Dim] = []
    for sizes in zip(*shapes, strict=True):
        wide = {size for size in sizes if size != 1}
        if len(wide) > 1:
            raise ShapeError(f"cannot broadcast {' with '.join(_text(shape) for shape in shapes)}")
        result.append(wide.pop() if wide else 1)
    return tuple(result)


def _text(shape: tuple[Dim, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"
