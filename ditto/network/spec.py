"""Static shape and dtype of a tensor."""

from __future__ import annotations

import torch
from attrs import evolve, frozen
from typing_extensions import override

from ditto.errors import ShapeError
from ditto.network.dims import Dim, DimExpr, parse, product

INT4: torch.dtype = torch.int4  # type: ignore[attr-defined] - torch's stubs lack it; torch only stores and views it
FLOATING = (torch.float32, torch.float16, torch.bfloat16)
INTEGRAL = (torch.int64, torch.int32)  # int8 is for quantized weights: TensorRT does not support it as an index


@frozen
class Spec:
    """Shape (integers and named dimensions) and dtype of a tensor."""

    shape: tuple[Dim, ...]
    dtype: torch.dtype

    @staticmethod
    def of(tensor: torch.Tensor) -> Spec:
        """The spec of a torch tensor."""
        return Spec(tuple(tensor.shape), tensor.dtype)

    @staticmethod
    def parse(text: str) -> Spec:
        """Parse the output of `str`.

        Raises:
            ValueError, ShapeError: the text has another form.
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
        """Return the spec itself if its dtype is floating.

        Raises:
            ShapeError: the dtype is not floating.
        """
        if self.dtype not in FLOATING:
            raise ShapeError(f"needs a floating dtype, got {self}")
        return self

    def integral(self) -> Spec:
        """Return the spec itself if its dtype is int32 or int64.

        Raises:
            ShapeError: the dtype is another one.
        """
        if self.dtype not in INTEGRAL:
            raise ShapeError(f"needs an integer dtype, got {self}")
        return self

    def of_rank(self, *ranks: int) -> Spec:
        """Return the spec itself if its rank is one of `ranks`.

        Raises:
            ShapeError: the rank is not one of `ranks`.
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
    """The torch dtype with a given name, e.g. `float16`.

    Raises:
        ValueError: torch has no dtype of that name.
    """
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{name!r} is not a dtype")
    return dtype


def same_dtype(*specs: Spec) -> torch.dtype:
    """The common dtype of specs.

    Raises:
        ShapeError: the dtypes differ.
    """
    if len({spec.dtype for spec in specs}) != 1:
        raise ShapeError(f"needs equal dtypes, got {' and '.join(map(str, specs))}")
    return specs[0].dtype


def broadcast(*shapes: tuple[Dim, ...]) -> tuple[Dim, ...]:
    """The broadcast shape of shapes of equal rank; sizes of an axis are equal or 1.

    Raises:
        ShapeError: ranks differ, or sizes differ and are not 1.
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
