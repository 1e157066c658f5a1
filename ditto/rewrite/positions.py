"""Positions that a model counts itself become its input of token positions.

A model that is not told positions counts the tokens of a call: 0, 1, 2, ... In decoding, that restarts with each call.
In the whole sequence, which a model's forward is defined on, place and position are the same; so counts that belong to
tokens can be replaced by the tokens' positions. Masks, which compare counts with each other, are classified before.

B rows, S tokens of a row.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from attrs import frozen
from torch import SymInt, Tensor, fx

from ditto.errors import ModelError
from ditto.network import dims
from ditto.ops.traits import Trait, traits_of
from ditto.program import Program
from ditto.rewrite.rule import arguments, as_call, fake_result

aten = torch.ops.aten

_ALONG = frozenset(
    {
        aten.cat.default,
        aten.chunk.default,
        aten.slice.Tensor,
        aten.split.Tensor,
        aten.stack.default,
        aten.transpose.int,
    }
)


class _NotPerToken(Exception):
    """A value that follows from a count has no form per row."""


@frozen
class _Lifted:
    """A value per row, in place of one that is the same for all rows.

    Args:
        node: the value per row.
        leading: whether it has an axis of rows in front of the axes of the old value; otherwise, its first axis, which
            was of size 1 or B, is the axis of rows.
    """

    node: fx.Node
    leading: bool


def use_given_positions(program: Program, positions: str) -> int:
    """Replace counts of tokens by positions; return their number.

    Args:
        positions: name of the input with token positions, [B, S] or [S].
    """
    source = next((node for node in program.inputs if node.target == positions), None)
    if source is None or program.spec(source).shape != program.spec(program.inputs[0]).shape[: _rank(source)]:
        return 0  # none, or several positions of each token
    replaced = 0
    for node in list(program.graph.nodes):
        if node.op != "call_function" or not node.users:
            continue
        try:
            lifted = _lifted_count(program, node, source) or _lifted_rows(program, node, source)
            if lifted is None:
                continue
            plan = _Replacement(program)
            plan.follow(node, lifted)
        except _NotPerToken:
            continue
        plan.apply()
        replaced += 1
    program.sweep()
    return replaced


def _lifted_count(program: Program, node: fx.Node, source: fx.Node) -> _Lifted | None:
    """The positions, if a node counts tokens: `arange(n, n + S)`."""
    if node.target not in (aten.arange.default, aten.arange.start):
        return None
    given = arguments(node)
    start = given.get("start", 0)
    if not isinstance(start, int) or not _is_tokens(program, given["end"], source, start):
        return None
    dtype = node.meta["val"].dtype
    with program.graph.inserting_before(node):
        counted = _call(program, aten.to.dtype, (source, dtype), node) if _dtype(source) != dtype else source
        counted = _call(program, aten.add.Tensor, (counted, start), node) if start else counted
    return _Lifted(counted, leading=_rank(source) == 2)


def _lifted_rows(program: Program, node: fx.Node, source: fx.Node) -> _Lifted | None:
    """The rows of a table by position, if a node takes as many as there are tokens: `table[n : n + S]`."""
    if node.target != aten.slice.Tensor:
        return None
    given = arguments(node)
    table, axis, start = given["self"], given["dim"], given["start"] or 0
    is_table = isinstance(table, fx.Node) and program.is_constant(table) and axis <= 1 and given["step"] == 1
    if not is_table or not isinstance(start, int) or not _is_tokens(program, given["end"], source, start):
        return None
    if axis == 1 and table.meta["val"].shape[0] != 1:
        return None
    with program.graph.inserting_before(node):
        rows = _call(program, aten.squeeze.dim, (table, 0), node) if axis else table
        counted = _call(program, aten.add.Tensor, (source, start), node) if start else source
        taken = _call(program, aten.index.Tensor, (rows, [counted]), node)
    if _rank(source) == 1 and axis:
        with program.graph.inserting_before(node):
            return _Lifted(_call(program, aten.unsqueeze.default, (taken, 0), node), leading=False)
    return _Lifted(taken, leading=axis == 0 and _rank(source) == 2)


def _is_tokens(program: Program, end: Any, source: fx.Node, start: int) -> bool:
    """Whether `end` is `start` plus the number of tokens."""
    if not isinstance(end, fx.Node) or not isinstance(end.meta.get("val"), SymInt):
        return False
    tokens = program.spec(source).shape[-1]
    try:
        return program.dim(end.meta["val"]) == dims.add(tokens, start) and not isinstance(tokens, int)
    except ModelError:  # no polynomial in the named dimensions
        return False


class _Replacement:
    """Values per row in place of those that follow from a lifted value, until shapes are what they were.

    Nothing is replaced before `apply`.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self._lifted: dict[fx.Node, _Lifted] = {}
        self._equal: dict[fx.Node, fx.Node] = {}

    def follow(self, old: fx.Node, lifted: _Lifted) -> None:
        """Lift what follows from a value.

        Raises:
            _NotPerToken: something has no form per row.
        """
        self._put(old, lifted)
        pending = {*old.users} if old in self._lifted else set()
        for node in list(self._program.graph.nodes):
            if node not in pending:
                continue
            with self._program.graph.inserting_before(node):
                self._put(node, self._lift(node))
            if node in self._lifted:
                pending.update(node.users)

    def apply(self) -> None:
        """Replace the values that have their old shape again."""
        for old, new in self._equal.items():
            old.replace_all_uses_with(new)

    def _put(self, old: fx.Node, lifted: _Lifted) -> None:
        several = isinstance(old.meta["val"], (list, tuple))
        if not several and not lifted.leading and self._shape(lifted.node) == self._shape(old):
            self._equal[old] = lifted.node
            return
        if not several and not lifted.leading and _rank(lifted.node) != _rank(old):
            raise _NotPerToken
        self._lifted[old] = lifted

    def _lift(self, node: fx.Node) -> _Lifted:
        if node.op != "call_function" or isinstance(node.meta.get("val"), SymInt):
            raise _NotPerToken
        if node.target is operator.getitem:
            several = self._lifted[node.args[0]]  # type: ignore[index]
            return _Lifted(self._call(operator.getitem, (several.node, node.args[1]), node), several.leading)
        given, traits = arguments(node), traits_of(node.target)
        operands = [part for part in node.all_input_nodes if isinstance(part.meta.get("val"), Tensor)]
        first = next(part for part in operands if part in self._lifted)
        if Trait.ELEMENTWISE in traits:
            return self._elementwise(node, operands)
        if node.target == aten.unsqueeze.default:
            return self._unsqueezed(node, given["dim"], self._lifted[first])
        if Trait.NAMES_SIZES in traits or node.target in (aten.expand_as.default, aten.reshape_as.default):
            return self._resized(node, self._lifted[first])
        if node.target in (aten.embedding.default, aten.index_select.default):
            table = given["weight"] if "weight" in given else given["self"]
            if table in self._lifted or given.get("dim", 0) != 0:
                raise _NotPerToken
            chosen = self._lifted[first]
            return _Lifted(self._call(aten.embedding.default, (table, chosen.node), node), chosen.leading)
        if node.target == aten.index.Tensor and given["indices"] == [first] and given["self"] not in self._lifted:
            chosen = self._lifted[first]
            return _Lifted(self._call(node.target, (given["self"], [chosen.node]), node), chosen.leading)
        return self._along(node, given, operands)

    def _elementwise(self, node: fx.Node, operands: list[fx.Node]) -> _Lifted:
        lifted = [part for part in operands if part in self._lifted]
        deepest = max(_rank(part) for part in lifted)
        leading = all(self._lifted[part].leading for part in lifted) and all(
            _rank(part) <= deepest for part in operands if part not in self._lifted
        )
        rank = deepest + 1 if leading else _rank(node)
        new: dict[fx.Node, fx.Node] = {}
        for part in lifted:
            new[part] = self._lifted[part].node
            for _ in range(rank - _rank(new[part]) if self._lifted[part].leading else 0):
                new[part] = self._call(aten.unsqueeze.default, (new[part], 1), node)
            if _rank(new[part]) > rank:
                raise _NotPerToken
        args: Any = fx.map_arg(node.args, lambda part: new.get(part, part))
        kwargs = fx.map_arg(node.kwargs, lambda part: new.get(part, part))
        return _Lifted(self._call(node.target, args, node, kwargs), leading)

    def _along(self, node: fx.Node, given: dict[str, Any], operands: list[fx.Node]) -> _Lifted:
        """An operator along axes other than that of rows."""
        leading = {self._lifted[part].leading if part in self._lifted else None for part in operands}
        if node.target not in _ALONG or len(leading) != 1 or None in leading:
            raise _NotPerToken
        is_leading = leading == {True}
        for name in given.keys() & {"dim", "dim0", "dim1"}:
            if not is_leading and given[name] == 0:
                raise _NotPerToken
            given[name] += is_leading
        new = {part: self._lifted[part].node for part in operands}
        given = {name: fx.map_arg(value, lambda part: new.get(part, part)) for name, value in given.items()}
        args, kwargs = as_call(node.target, given)
        return _Lifted(self._call(node.target, args, node, kwargs), is_leading)

    def _unsqueezed(self, node: fx.Node, axis: int, lifted: _Lifted) -> _Lifted:
        if lifted.leading and axis == 0:
            return _Lifted(lifted.node, leading=False)
        axis = axis + 1 if lifted.leading else max(axis, 1)  # an axis before or behind one of size 1 is the same
        return _Lifted(self._call(aten.unsqueeze.default, (lifted.node, axis), node), lifted.leading)

    def _resized(self, node: fx.Node, lifted: _Lifted) -> _Lifted:
        """A reshape or an expansion that adds the axis of rows (and axes of size 1), repeats it, or merges the last two
        axes."""
        have, wanted = (self._shape(part) for part in (lifted.node, node))
        if len(have) == len(wanted) and have[1:] == wanted[1:]:
            return _Lifted(lifted.node, leading=False)
        added = len(wanted) - len(have)
        if lifted.leading and added >= 0 and wanted == (1, *have[1:], *(1,) * added):
            result = lifted.node
            for _ in range(added):
                result = self._call(aten.unsqueeze.default, (result, _rank(result)), node)
            return _Lifted(result, leading=False)
        is_reshape = node.target in (aten.reshape.default, aten.reshape_as.default) and not lifted.leading
        if not is_reshape or wanted[0] != 1 or have[1:-2] != wanted[1:-1]:
            raise _NotPerToken
        return _Lifted(self._call(aten.flatten.using_ints, (lifted.node, -2, -1), node), leading=False)

    def _call(self, target: Any, args: tuple[Any, ...], like: fx.Node, kwargs: Any = None) -> fx.Node:
        return _call(self._program, target, args, like, kwargs)

    def _shape(self, node: fx.Node) -> tuple[object, ...]:
        """A node's shape in the named dimensions; torch has several symbols for one of them."""
        try:
            return self._program.spec(node).shape
        except ModelError:  # no polynomial in the named dimensions
            return tuple(str(size) for size in node.meta["val"].shape)


def _call(program: Program, target: Any, args: tuple[Any, ...], like: fx.Node, kwargs: Any = None) -> fx.Node:
    result = program.graph.call_function(target, args, dict(kwargs or {}))
    result.meta.update(like.meta)
    result.meta["val"] = fake_result(result)
    return result


def _dtype(node: fx.Node) -> torch.dtype:
    return node.meta["val"].dtype


def _rank(node: fx.Node) -> int:
    return node.meta["val"].dim()
