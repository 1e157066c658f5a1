"""From a program to a network: one walk over the graph."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from attrs import define, field
from torch import SymInt, fx

from ditto.errors import ModelError, Place, ShapeError, UnsupportedOperator, at
from ditto.lowering.folding import fold_call
from ditto.lowering.registry import Table, call
from ditto.network import dims
from ditto.network.dims import Dim, DimExpr
from ditto.network.graph import Network, Value
from ditto.network.layer import Layer
from ditto.network.layers import Cast, Concatenation, Constant, ElementWise, Identity, Shape, Shuffle, Slice
from ditto.network.layers.shape import reshape_form
from ditto.network.spec import Spec
from ditto.network.weight import Folded, Literal, Stored, Weight, fold
from ditto.program import Program
from ditto.progress import stage

Operand = Any  # a Value, a Weight, a number, a Dim, or a list of such: what a node's argument stands for


@define
class Lowering:
    """What lowering functions work with: the network under construction and the node being lowered.

    Args:
        network: grows.
        program: being lowered.
        weight_of: the weight of a parameter, by its name in the captured module.
    """

    network: Network
    program: Program
    weight_of: Callable[[str], Weight]
    node: fx.Node | None = None
    _inputs: dict[str, tuple[Value, int]] = field(factory=dict)

    @property
    def result(self) -> Spec:
        """What the node being lowered gives, according to PyTorch."""
        assert self.node is not None
        return self.program.spec(self.node)

    def add(self, layer: Layer, *inputs: Value) -> Value:
        """Add a layer with one output."""
        return self.network.add(layer, *inputs)

    def input(self, name: str, spec: Spec) -> Value:
        """Add a network input."""
        value = self.network.input(name, spec)
        for axis, dim in enumerate(spec.shape):
            if isinstance(dim, DimExpr) and dim == dims.symbol(str(dim)):
                self._inputs.setdefault(str(dim), (value, axis))
        return value

    def literal(self, tensor: torch.Tensor) -> Value:
        """A constant that the network carries."""
        return self.add(Constant(self.network.literals.keep(tensor)))

    def value(self, operand: Operand) -> Value:
        """An operand as a value: weights become constants."""
        if isinstance(operand, Value):
            return operand
        if isinstance(operand, (Stored, Literal, Folded)):
            return self.add(Constant(operand))
        raise ShapeError(f"{operand!r} is no tensor")

    def operand(self, operand: Operand, dtype: torch.dtype, rank: int) -> Value:
        """An operand of an elementwise layer: cast, and of the given rank by leading axes of size 1."""
        if isinstance(operand, (bool, int, float)):
            return self.literal(torch.full((1,) * rank, operand, dtype=dtype))
        if isinstance(operand, DimExpr):
            return self.reshape(self.cast(self.sizes((operand,)), dtype), (1,) * rank)
        if isinstance(operand, (Stored, Literal, Folded)):
            weight: Weight = operand if operand.dtype == dtype else fold("cast", operand, dtype)
            return self.add(Constant(_of_rank(weight, rank)))
        value = self.cast(self.value(operand), dtype)
        return self.reshape(value, (1,) * (rank - value.rank) + value.spec.shape)

    def cast(self, x: Value, dtype: torch.dtype) -> Value:
        """x in another dtype, if it is not of that dtype already."""
        return x if x.spec.dtype == dtype else self.add(Cast(dtype), x)

    def reshape(self, x: Value, shape: tuple[Dim, ...]) -> Value:
        """x in another shape of as many elements."""
        if x.spec.shape == shape:
            return x
        form = reshape_form(x.spec.shape, shape)
        if form is not None:
            return self.add(Shuffle(reshape=form), x)
        return self.add(Shuffle(sizes=shape), x, self.sizes(shape))

    def permute(self, x: Value, axes: tuple[int, ...]) -> Value:
        """x with its axes in another order."""
        return x if axes == tuple(range(len(axes))) else self.add(Shuffle(first=axes), x)

    def slice(self, x: Value, axis: int, start: int, size: Dim, step: int = 1) -> Value:
        """`size` slices of x along an axis."""
        sizes = x.spec.shape[:axis] + (size,) + x.spec.shape[axis + 1 :]
        starts = (0,) * axis + (start,) + (0,) * (x.rank - axis - 1)
        steps = (1,) * axis + (step,) + (1,) * (x.rank - axis - 1)
        return self.box(x, starts, sizes, steps)

    def box(self, x: Value, start: tuple[int, ...], size: tuple[Dim, ...], stride: tuple[int, ...]) -> Value:
        """A strided box of x; sizes that depend on inputs are computed at run time."""
        static = all(isinstance(dim, int) for dim in size)
        return self.add(Slice(start, size, stride), x, *([] if static else [self.sizes(size)]))

    def sizes(self, shape: tuple[Dim, ...]) -> Value:
        """A shape as an int64 [rank] tensor, from the shapes of the network's inputs."""
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
                value, axis = self._inputs[name]
                size = self.add(Slice((axis,), (1,), (1,)), self.add(Shape(), value))
                term = size if term is None else self.add(ElementWise("PROD"), term, size)
            number = self.literal(torch.tensor([factor], dtype=torch.int64))
            if term is None:
                term = number
            elif factor != 1:
                term = self.add(ElementWise("PROD"), term, number)
            total = term if total is None else self.add(ElementWise("SUM"), total, term)
        assert total is not None
        return total


def _of_rank(weight: Weight, rank: int) -> Weight:
    """A weight with leading axes of size 1. Joined weights stay joined outermost, so that their parts can be used
    as they are stored."""
    missing = rank - len(weight.shape)
    if missing <= 0:
        return weight
    if isinstance(weight, Folded) and weight.op == "concatenate":
        parts, axis = weight.operands
        return fold("concatenate", tuple(_of_rank(part, rank) for part in parts), axis + missing)
    return fold("reshape", weight, (1,) * missing + weight.shape)


def lower(
    program: Program, table: Table, weight_of: Callable[[str], Weight], name: str, context: Lowering | None = None
) -> Network:
    """Describe a program as a network.

    Args:
        table: a lowering for every operator that cannot be folded.
        weight_of: the weight of a parameter, by its name in the captured module.
        name: of the network.
        context: a prepared `Lowering`, where a target adds inputs of its own first.
    Raises:
        UnsupportedOperator: operators without a lowering; all are named.
        ModelError, ShapeError: an operator is used in a way that its lowering cannot express.
    """
    with stage("lower", name):
        _refuse_unknown(program, table)
        net = context or Lowering(Network(name), program, weight_of)
        env: dict[fx.Node, Operand] = {}
        for node in program.graph.nodes:
            if node.op == "output":
                break
            with net.network.placed(program.place(node)):
                net.node = node
                env[node] = _lower_node(net, node, table, env)
                _check_against_torch(net, node, env[node])
        for output, node in zip(program.output_names, program.outputs, strict=True):
            value = net.value(env[node])
            if net.network.producer(value) is None or value.name in net.network.outputs.values():
                value = net.add(Identity(), value)
            net.network.output(output, value)
        net.network.prune()
        return net.network


def _lower_node(net: Lowering, node: fx.Node, table: Table, env: Mapping[fx.Node, Operand]) -> Operand:
    if node.op == "placeholder":
        return net.input(str(node.target), net.program.spec(node))
    if node.op == "get_attr":
        target = str(node.target)
        if target in net.program.constants:
            return net.network.literals.keep(net.program.constants[target])
        return net.weight_of(net.program.parameters[target])
    meaning = node.meta.get("val")
    if isinstance(meaning, (int, SymInt)):
        return net.program.dim(meaning)
    args: Any = fx.map_arg(node.args, env.__getitem__)
    kwargs: Any = fx.map_arg(node.kwargs, env.__getitem__)
    if node.target is operator.getitem:
        return args[0][args[1]]
    assert isinstance(node.target, torch._ops.OpOverload)
    folded = fold_call(node.target, args, kwargs)
    return folded if folded is not None else call(node.target, table[node.target], net, args, kwargs)


def _refuse_unknown(program: Program, table: Table) -> None:
    missing: dict[str, list[Place]] = {}
    for node in program.graph.nodes:
        if node.op != "call_function" or node.target in table or node.target is operator.getitem:
            continue
        if isinstance(node.meta.get("val"), (int, SymInt)):
            continue
        missing.setdefault(str(node.target), []).append(program.place(node))
    if missing:
        raise UnsupportedOperator(missing, [str(operation) for operation in table])


def _check_against_torch(net: Lowering, node: fx.Node, made: Operand) -> None:
    """The shape rules of layers, held against PyTorch's at every operator."""
    if not isinstance(node.meta.get("val"), torch.Tensor) or not isinstance(made, Value):
        return
    wanted = net.program.spec(node)
    if made.spec != wanted:
        with at(net.program.place(node)):
            raise ModelError(
                f"`{node.target}` was lowered to {made.spec}, PyTorch gives {wanted}",
                remedy="this is a fault of Ditto's lowering of that operator: please report it",
            )
