"""Lowering of a program to a network, node by node."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, Union

import torch
from attrs import define, field
from torch import SymInt, fx

from ditto.errors import ModelError, Place, ShapeError, UnsupportedFeature, UnsupportedOperator, at
from ditto.lowering.folding import fold_call
from ditto.lowering.registry import Table, call
from ditto.network.builder import NetworkBuilder
from ditto.network.dims import DimExpr
from ditto.network.graph import Network, Value
from ditto.network.layers import Identity
from ditto.network.spec import Spec
from ditto.network.weight import Folded, Weight, fold
from ditto.program import Program
from ditto.progress import stage

Operand = Union[Value, Weight, DimExpr, int, float]
"""A tensor or a number in the arguments of a node."""


@define
class Lowering(NetworkBuilder):
    """Context of lowering functions: the network under construction and the node being lowered.

    Args:
        network: the network under construction.
        program: the program being lowered.
        weight_of: the weight of a parameter, by its name in the captured module.
        known: values of inputs that are the same in all calls, by name; the network has no such inputs.
    """

    program: Program
    weight_of: Callable[[str], Weight]
    known: Mapping[str, Operand] = field(factory=dict)
    node: fx.Node | None = None

    @property
    def result(self) -> Spec:
        """The spec of the current node's output, according to PyTorch."""
        assert self.node is not None
        return self.program.spec(self.node)

    def input(self, name: str, spec: Spec) -> Value:
        """Add a network input."""
        return self.network.input(name, spec)

    def value(self, operand: Operand) -> Value:
        """Convert an operand to a value: weights become constants."""
        if isinstance(operand, Value):
            return operand
        if isinstance(operand, Weight):
            return self.constant(operand)
        raise ShapeError(f"{operand!r} is not a tensor")

    def operand(self, operand: Operand, dtype: torch.dtype, rank: int) -> Value:
        """Convert an operand of an elementwise layer: cast, and extend to a rank by leading axes of size 1."""
        if isinstance(operand, (bool, int, float)):
            return self.literal(torch.full((1,) * rank, operand, dtype=dtype))
        if isinstance(operand, DimExpr):
            return self.reshape(self.cast(self.sizes((operand,)), dtype), (1,) * rank)
        if isinstance(operand, Weight):
            weight: Weight = operand if operand.dtype == dtype else fold("cast", operand, dtype)
            return self.constant(_of_rank(weight, rank))
        value = self.cast(self.value(operand), dtype)
        return self.reshape(value, (1,) * (rank - value.rank) + value.spec.shape)


def _of_rank(weight: Weight, rank: int) -> Weight:
    """Reshape a weight to a rank by leading axes of size 1.

    Concatenations stay the outermost operator, so that their parts can be used as stored.
    """
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
    """Lower a program to a network, operator by operator; redundant and unused layers are left to passes.

    Args:
        table: a lowering for every operator that cannot be folded.
        weight_of: the weight of a parameter, by its name in the captured module.
        name: of the network.
        context: a prepared `Lowering`, if a target has added inputs of its own.
    Raises:
        UnsupportedOperator: some operators have no lowering; the error names all of them.
        UnsupportedFeature: it is unknown whether an operator mixes the tokens of a decoder.
        ModelError, ShapeError: an operator is used in a way that its lowering does not support.
    """
    with stage("lower", name):
        _refuse_unknown(program, table)
        _refuse_doubts(program)
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
        return net.network


def _lower_node(net: Lowering, node: fx.Node, table: Table, env: Mapping[fx.Node, Operand]) -> Operand:
    if node.op == "placeholder":
        name = str(node.target)
        return net.known[name] if name in net.known else net.input(name, net.program.spec(node))
    if node.op == "get_attr":
        target = str(node.target)
        if target in net.program.constants:
            return net.network.literals.keep(net.program.constants[target])
        return net.weight_of(net.program.parameters[target])
    meaning = node.meta.get("val")
    if isinstance(meaning, (int, SymInt)):
        return net.program.dim(meaning)
    lowered: Callable[[fx.Node], Any] = env.__getitem__
    args: Any = fx.map_arg(node.args, lowered)
    kwargs: Any = fx.map_arg(node.kwargs, lowered)
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


def _refuse_doubts(program: Program) -> None:
    for operation, place in program.doubts:
        raise UnsupportedFeature(
            f"it is not known whether `{operation}` keeps the tokens of a sequence apart",
            place,
            remedy="add a rule for it to `ditto/rewrite/token_rules.py`",
        )


def _check_against_torch(net: Lowering, node: fx.Node, lowered: Operand) -> None:
    """Compare the inferred spec of a lowered node with PyTorch's."""
    if not isinstance(node.meta.get("val"), torch.Tensor) or not isinstance(lowered, Value):
        return
    wanted = net.program.spec(node)
    if lowered.spec != wanted:
        with at(net.program.place(node)):
            raise ModelError(
                f"`{node.target}` was lowered to {lowered.spec}, PyTorch gives {wanted}",
                remedy="this is a fault of Ditto's lowering of that operator: please report it",
            )
