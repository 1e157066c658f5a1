"""Tensor operations (reshape, permute, slice, run-time sizes) as layers of a network."""

from __future__ import annotations

import torch
from attrs import define

from ditto.errors import ShapeError
from ditto.network.dims import Dim, DimExpr, symbol
from ditto.network.graph import Network, Value
from ditto.network.layer import Layer
from ditto.network.layers import Cast, Concatenation, Constant, ElementWise, Shape, Shuffle, Slice
from ditto.network.layers.shape import reshape_form
from ditto.network.weight import Weight


@define
class NetworkBuilder:
    """Adds layers to a network.

    Args:
        network: the network under construction.
    """

    network: Network

    def add(self, layer: Layer, *inputs: Value) -> Value:
        """Add a layer with one output."""
        return self.network.add(layer, *inputs)

    def constant(self, weight: Weight) -> Value:
        """Add a weight as a constant."""
        return self.add(Constant(weight))

    def literal(self, tensor: torch.Tensor) -> Value:
        """Add a constant whose data is stored in the network itself."""
        return self.constant(self.network.literals.keep(tensor))

    def cast(self, x: Value, dtype: torch.dtype) -> Value:
        """Cast x to a dtype; x itself if it already has it."""
        return x if x.spec.dtype == dtype else self.add(Cast(dtype), x)

    def reshape(self, x: Value, shape: tuple[Dim, ...]) -> Value:
        """Reshape x to a shape with the same number of elements."""
        if x.spec.shape == shape:
            return x
        form = reshape_form(x.spec.shape, shape)
        if form is not None:
            return self.add(Shuffle(reshape=form), x)
        return self.add(Shuffle(sizes=shape), x, self.sizes(shape))

    def permute(self, x: Value, axes: tuple[int, ...]) -> Value:
        """Permute the axes of x."""
        return x if axes == tuple(range(len(axes))) else self.add(Shuffle(first=axes), x)

    def slice(self, x: Value, axis: int, start: int, size: Dim, step: int = 1) -> Value:
        """Slice x along one axis: `size` indices from `start` in steps of `step`."""
        sizes = x.spec.shape[:axis] + (size,) + x.spec.shape[axis + 1 :]
        starts = (0,) * axis + (start,) + (0,) * (x.rank - axis - 1)
        steps = (1,) * axis + (step,) + (1,) * (x.rank - axis - 1)
        return self.box(x, starts, sizes, steps)

    def box(self, x: Value, start: tuple[int, ...], size: tuple[Dim, ...], stride: tuple[int, ...]) -> Value:
        """Slice x along all axes; sizes that depend on inputs are computed at run time."""
        static = all(isinstance(dim, int) for dim in size)
        return self.add(Slice(start, size, stride), x, *([] if static else [self.sizes(size)]))

    def sizes(self, shape: tuple[Dim, ...]) -> Value:
        """A shape as an int64 [rank] tensor, computed from the shapes of the network's inputs."""
        if all(isinstance(dim, int) for dim in shape):
            return self.literal(torch.tensor(shape, dtype=torch.int64))
        parts: list[Value] = []
        static: list[int] = []
        for dim in shape:
            if isinstance(dim, int):
                static.append(dim)
                continue
            if static:
                parts.append(self.literal(torch.tensor(static, dtype=torch.int64)))
                static = []
            parts.append(self._size(dim))
        if static:
            parts.append(self.literal(torch.tensor(static, dtype=torch.int64)))
        return parts[0] if len(parts) == 1 else self.add(Concatenation(axis=0), *parts)

    def _size(self, dim: DimExpr) -> Value:
        total: Value | None = None
        for monomial, factor in dim.terms:
            term: Value | None = None
            for name in monomial:
                value, axis = self._input_with(name)
                size = self.add(Slice((axis,), (1,), (1,)), self.add(Shape(), value))
                term = size if term is None else self.add(ElementWise("PROD"), term, size)
            if term is None or factor != 1:
                number = self.literal(torch.tensor([factor], dtype=torch.int64))
                term = number if term is None else self.add(ElementWise("PROD"), term, number)
            total = term if total is None else self.add(ElementWise("SUM"), total, term)
        assert total is not None
        return total

    def _input_with(self, dimension: str) -> tuple[Value, int]:
        """The first input with a named dimension, and the axis of that dimension.

        Raises:
            ShapeError: no input has that dimension.
        """
        for name, spec in self.network.inputs.items():
            for axis, dim in enumerate(spec.shape):
                if dim == symbol(dimension):
                    return self.network.value(name), axis
        raise ShapeError(f"no input has the dimension `{dimension}`")
