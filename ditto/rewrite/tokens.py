"""Check that a decoder processes tokens independently except for operators with a state.

In decoding, the input of an engine is one token of each sequence; of earlier tokens it keeps the states of Ditto's own
operators: keys and values of `ditto.attention`, and those of `ditto.causal_conv` and `ditto.linear_attention`. So the
result for a token may depend on the token itself, its position, and these operators. It must not depend on other tokens
in any other way (other convolutions, scans, shifts, attention), because that state is not kept, nor on the number of
input tokens, which is then always 1 (positions that a model counts itself). This module detects both, operator by
operator, for any model.
"""

from __future__ import annotations

import operator
from typing import Any, Union

import torch
from attrs import evolve, frozen
from torch import SymInt, Tensor, fx

import ditto.rewrite.semantic_rules  # noqa: F401 - registers the rules of Ditto's operators
from ditto.errors import ModelError, UnsupportedFeature, at
from ditto.network import dims
from ditto.network.dims import Dim
from ditto.ops.attention import AttentionArguments
from ditto.ops.traits import Trait, traits_of
from ditto.program import Program
from ditto.rewrite.layout import Layout, canonical, names, plain
from ditto.rewrite.rule import arguments
from ditto.rewrite.token_rules import Call, Mixes, rule_of

aten = torch.ops.aten


@frozen
class _Uniform:
    """State of values that do not depend on tokens or their number: weights, constants, zeros."""


@frozen
class _Counted:
    """State of values that depend on the number of tokens or rows; `origin` is the node that counts them."""

    origin: fx.Node


@frozen
class _PerToken:
    """State of values that depend on the inputs, each entry on one token."""

    layout: Layout


@frozen
class _Unknown:
    """State of values that depend on the inputs through an operator without a rule."""


_State = Union[_Uniform, _Counted, _PerToken, _Unknown]

# Operators whose size arguments only determine a shape.
_SHAPED = frozenset({aten.broadcast_to, aten.repeat, aten.unflatten})
_FILLS = Trait.OF_NUMBERS | Trait.NAMES_SIZES
_JOINS = frozenset({aten.cat, aten.stack})

_REMEDY = (
    "an engine keeps keys and values, and the states of causal convolutions and linear recurrences: models whose "
    "tokens reach each other only through these, and whose positions are `position_ids`, are supported"
)


def refuse_other_state(program: Program) -> int:
    """Refuse decoders that need more state of earlier tokens than their keys and values.

    Operators without a rule whose operands depend on tokens are added to the program's `doubts`. Returns 0, because
    nothing changes.

    Raises:
        UnsupportedFeature: tokens influence each other except through `ditto.attention`, or a value depends on the
            number of tokens.
    """
    states: dict[fx.Node, _State | list[_State]] = {}
    for node in program.graph.nodes:
        with at(program.place(node)):
            if node.op == "placeholder":
                states[node] = _PerToken(plain(_shape(program, node.meta["val"])))
            elif node.op == "get_attr":
                states[node] = _Uniform()
            elif node.op == "output":
                for result in program.outputs:
                    if isinstance(state := states[result], _Counted):
                        _refuse_count(program, state)
            elif node.target is operator.getitem and node.args[0] in states:
                states[node] = _picked(states[node.args[0]], node.args[1])  # type: ignore[index]
            else:
                states[node] = _state_of(program, node, states)
    return 0


def refuse_other_layers(program: Program, layers: int) -> int:
    """Refuse decoders with layers that have no attention with a KV cache.

    Where each layer attends several times, or layers run several times, the attentions are numbered in order, so that
    each has a KV cache. Returns the number of attentions that get a number.

    Args:
        layers: number of layers with attention, according to the configuration.
    Raises:
        UnsupportedFeature: the program has fewer attention operators than layers, or not the same number for each.
    """
    attentions = [node for node in program.graph.nodes if node.target == torch.ops.ditto.attention.default]
    found = [arguments(node)["layer"] for node in attentions]
    if len(found) > layers > 0 and len(found) % layers == 0:
        for number, node in enumerate(attentions):
            given: AttentionArguments[Any] = AttentionArguments(**arguments(node))
            node.args, node.kwargs = evolve(given, layer=number).args, {}
        return len(found)
    if len(found) != layers:
        missing = ", ".join(str(layer) for layer in range(layers) if layer not in found)
        raise UnsupportedFeature(
            f"the configuration has {layers} layers that attend, and {len(found)} attentions have a KV cache"
            + (f": layers {missing} have none" if missing else ""),
            remedy=_REMEDY,
        )
    return 0


def _picked(state: Any, index: Any) -> _State:
    return state[index] if isinstance(state, list) else state


def _state_of(program: Program, node: fx.Node, states: dict[fx.Node, Any]) -> _State | list[_State]:
    """The state of the results of a call."""
    value = node.meta.get("val")
    packet = getattr(node.target, "overloadpacket", None)
    if isinstance(value, (int, SymInt)) and (packet == aten.sym_size or not _tensors(node)):
        return _Counted(node) if isinstance(value, SymInt) else _Uniform()
    traits = traits_of(node.target)
    if (Trait.OF_SHAPE in traits or _FILLS in traits) and not isinstance(_fill_of(node), fx.Node):
        return _Uniform()
    shaped = Trait.NAMES_SIZES in traits or packet in _SHAPED
    counted = [
        state
        for part in node.all_input_nodes
        if isinstance(state := states[part], _Counted)
        and not (shaped and _is_size(part) and part is not _fill_of(node))
    ]
    layouts = {part: state.layout for part in _tensors(node) if isinstance(state := states[part], _PerToken)}
    unknown = [part for part in node.all_input_nodes if isinstance(states[part], _Unknown)]
    if counted:
        if layouts or unknown:
            _refuse_count(program, counted[0], node)
        return _Counted(node) if _is_size(counted[0].origin) else counted[0]
    if unknown:
        return _Unknown()
    moves = Trait.MOVES in traits and packet not in _JOINS
    return _propagated(program, node, layouts, moves)


def _propagated(program: Program, node: fx.Node, layouts: dict[fx.Node, Layout], moves: bool) -> _State | list[_State]:
    """The state of the results of a call whose operands do not depend on the number of tokens."""
    value = node.meta.get("val")
    values = value if isinstance(value, (list, tuple)) else [value]
    shapes = [_shape(program, part) for part in values if isinstance(part, Tensor)]
    uniform = {part: plain(_shape(program, part.meta["val"])) for part in _tensors(node) if part not in layouts}
    if not layouts and (moves or not any(names(layout) for layout in uniform.values())):
        return _Uniform()
    rule = rule_of(node.target)
    if rule is None or not all(isinstance(part, Tensor) for part in values):
        if layouts:
            program.doubts.append((str(node.target), program.place(node)))
        return _Unknown() if layouts else _Counted(node)
    try:
        result_layouts = rule(Call(arguments(node), layouts, uniform, shapes))
    except Mixes as mixes:
        if not layouts:
            return _Counted(node)
        raise UnsupportedFeature(
            f"a token's values follow from other tokens of its sequence: `{node.target}` {mixes}", remedy=_REMEDY
        ) from None
    results: list[_State] = [_PerToken(canonical(layout)) if layouts else _Uniform() for layout in result_layouts]
    return results if isinstance(value, (list, tuple)) else results[0]


def _refuse_count(program: Program, counted: _Counted, met: fx.Node | None = None) -> None:
    origin = counted.origin
    with at(program.place(origin)):
        raise UnsupportedFeature(
            f"a token's values follow from how many tokens are given: `{_name(origin)}` counts them"
            + (f", and `{_name(met)}` of {program.place(met)} uses that" if met is not None else ""),
            remedy="such a model takes every token of an answer for the first one of a sequence: let its positions "
            "follow from `position_ids`",
        )


def _fill_of(node: fx.Node) -> Any:
    """The fill value of an operator, None if it has none."""
    for index, parameter in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
        if parameter.name == "fill_value":
            return node.args[index] if index < len(node.args) else node.kwargs.get("fill_value")
    return None


def _name(node: fx.Node) -> str:
    return str(node.target)


def _tensors(node: fx.Node) -> list[fx.Node]:
    return [part for part in node.all_input_nodes if isinstance(part.meta.get("val"), Tensor)]


def _is_size(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), SymInt)


def _shape(program: Program, value: Tensor) -> tuple[Dim, ...]:
    return tuple(_dim(program, size) for size in value.shape)


def _dim(program: Program, size: int | SymInt) -> Dim:
    try:
        return program.dim(size)
    except ModelError:  # rounded, maximum of two, ...: treated as a separate dimension
        return dims.symbol(f"({size})")
