"""Functional form of operators that write into their first argument.

Values of a network are immutable. A write becomes a new value, which later uses read instead: of the written tensor,
of the tensor that it is a view of, and of other views of that.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from attrs import define, field
from torch import Tensor, fx
from torch._ops import OpOverload

from ditto.program import Program, is_mutating
from ditto.rewrite.rule import arguments, fake_result

aten = torch.ops.aten

# Operators whose result is a view only if that needs no copy.
_PERHAPS_VIEWS = frozenset({aten.reshape.default, aten.flatten.using_ints})
_RESHAPES = _PERHAPS_VIEWS | {aten.view.default, aten.unsqueeze.default, aten.squeeze.dim}
_SAME = frozenset({aten.alias.default, aten.contiguous.default, aten.detach.default, aten.detach_.default})
_CASTS = frozenset({aten.to.dtype, aten.to.device, aten.to.other, aten.to.dtype_layout})


@define
class _Unsupported(Exception):
    """A write that this rewrite leaves as it is, to the memory that starts at `start`."""

    start: str


def make_functional(program: Program) -> int:
    """Replace operators that write into their first argument; return their number.

    Writes into inputs, parameters and buffers stay, and so do all writes to memory of which one cannot be replaced.
    """
    left: set[str] = set()
    while any(_is_replaceable(node, left) for node in program.graph.nodes):
        graph = _copied(program.graph)
        memory = _Memory(graph, left)
        try:
            for node in list(graph.nodes):
                memory.visit(node)
        except _Unsupported as unsupported:
            left.add(unsupported.start)
            continue
        program.graph = graph
        program.sweep()
        return memory.count
    return 0


def _is_replaceable(node: fx.Node, left: set[str]) -> bool:
    """Whether a node writes into memory that the program itself allocates."""
    if node.op != "call_function" or not is_mutating(node) or not isinstance(node.args[0], fx.Node):
        return False
    start = _start(node.args[0])
    return start.op == "call_function" and start.name not in left


def _copied(graph: fx.Graph) -> fx.Graph:
    """A copy of a graph whose nodes have the same names."""
    copy, copied = fx.Graph(), {}
    for node in graph.nodes:
        copied[node] = copy.node_copy(node, copied.__getitem__)
    return copy


@define
class _Memory:
    """The current value of each tensor that was written into.

    Args:
        graph: the program's graph.
        left: names of the nodes that allocate memory whose writes stay.
        values: the current value of the memory that starts at a node, and how often it was written.
        views: the current value of a view, and the number of writes that it includes.
        count: number of replaced writes.
    """

    graph: fx.Graph
    left: set[str]
    values: dict[fx.Node, tuple[fx.Node, int]] = field(factory=dict)
    views: dict[fx.Node, tuple[fx.Node, int]] = field(factory=dict)
    count: int = 0

    def visit(self, node: fx.Node) -> None:
        """Let a node read current values; replace it if it writes."""
        if _is_replaceable(node, self.left):
            self._write(node)
            return
        for part in node.all_input_nodes:
            start = _start(part)
            if start in self.values and not (_source(node) is not None and _start(node) is start):
                node.replace_input_with(part, self._current(part, node))

    def _current(self, node: fx.Node, before: fx.Node) -> fx.Node:
        """The current value of a tensor, computed before a node."""
        start = _start(node)
        if start not in self.values:
            return node
        value, count = self.values[start]
        if node is start:
            return value
        known, seen = self.views.get(node, (node, 0))
        if seen == count:
            return known
        source = _source(node)
        assert source is not None
        if node.target is operator.getitem:  # of several views of one tensor
            (several, index) = node.args
            assert isinstance(several, fx.Node)
            whole = _source(several)
            assert whole is not None
            parts = self._call(
                before, several.target, (self._current(whole, before), *several.args[1:]), several.kwargs
            )
            result = self._call(before, operator.getitem, (parts, index), {})
        else:
            viewed = self._current(source, before)
            result = self._call(before, node.target, (viewed, *node.args[1:]), node.kwargs)
        self.views[node] = result, count
        return result

    def _write(self, node: fx.Node) -> None:
        target = node.args[0]
        assert isinstance(target, fx.Node)
        start = _start(target)
        for part in node.all_input_nodes:
            if part is not target:
                node.replace_input_with(part, self._current(part, node))
        inner = new = self._functional(node, self._current(target, node))
        path = target
        while path is not start:
            source = _source(path)
            assert source is not None
            inner = self._written_back(node, path, source, inner)
            path = source
        count = self.values.get(start, (start, 0))[1] + 1
        self.values[start] = inner, count
        self.views[target] = new, count
        node.replace_all_uses_with(target)
        self.graph.erase_node(node)
        self.count += 1

    def _functional(self, node: fx.Node, old: fx.Node) -> fx.Node:
        """The value that a node writes, in the shape and dtype of what it overwrites."""
        name, wanted = node.target._schema.name.removeprefix("aten::"), old.meta["val"]  # type: ignore[union-attr]
        if name in ("copy_", "fill_") and isinstance(node.args[1], fx.Node):
            new = node.args[1]
        elif name in ("zero_", "fill_"):
            number = 0 if name == "zero_" else node.args[1]
            new = self._call(node, aten.full_like.default, (old, number), {})
        else:
            packet = getattr(aten, name.removesuffix("_"), None)
            functional = getattr(packet, node.target._overloadname, None)  # type: ignore[union-attr]
            if not name.endswith("_") or not isinstance(functional, OpOverload) or functional._schema.is_mutable:
                raise _Unsupported(_start(node).name)
            new = self._call(node, functional, (old, *node.args[1:]), node.kwargs)
        assert isinstance(new, fx.Node)
        if new.meta["val"].dtype != wanted.dtype:
            new = self._call(node, aten.to.dtype, (new, wanted.dtype), {})
        if [str(size) for size in new.meta["val"].shape] != [str(size) for size in wanted.shape]:
            new = self._call(node, aten.expand_as.default, (new, old), {})
        return new

    def _written_back(self, at: fx.Node, view: fx.Node, source: fx.Node, new: fx.Node) -> fx.Node:
        """The value of `source` after a view of it has become `new`."""
        old = self._current(source, at)
        value, given = old.meta["val"], arguments(view) if view.target is not operator.getitem else {}
        if view.target == aten.slice.Tensor and given["step"] == 1:
            axis, size = given["dim"], value.shape[given["dim"]]
            if not isinstance(size, int):
                raise _Unsupported(_start(view).name)
            first, last, _ = slice(given["start"], given["end"]).indices(size)
            return self._between(at, old, axis, (first, last), new)
        if view.target == aten.select.int and isinstance(value.shape[given["dim"]], int):
            axis, size = given["dim"], value.shape[given["dim"]]
            first = given["index"] % size
            row = self._call(at, aten.unsqueeze.default, (new, axis), {})
            return self._between(at, old, axis, (first, first + 1), row)
        if view.target in _RESHAPES:
            return self._call(at, aten.reshape_as.default, (new, old), {})
        if view.target == aten.transpose.int:
            return self._call(at, aten.transpose.int, (new, given["dim0"], given["dim1"]), {})
        if view.target == aten.permute.default:
            axes = [axis % value.dim() for axis in given["dims"]]
            return self._call(at, aten.permute.default, (new, [axes.index(axis) for axis in range(value.dim())]), {})
        if view.target in _CASTS | _SAME:
            return new
        raise _Unsupported(_start(view).name)

    def _between(self, at: fx.Node, old: fx.Node, axis: int, bounds: tuple[int, int], new: fx.Node) -> fx.Node:
        """A tensor with `new` in place of a range of indices of an axis."""
        parts = [(0, bounds[0]), None, (bounds[1], old.meta["val"].shape[axis])]
        kept = [
            new if part is None else self._call(at, aten.slice.Tensor, (old, axis, *part), {})
            for part in parts
            if part is None or part[0] < part[1]
        ]
        return kept[0] if len(kept) == 1 else self._call(at, aten.cat.default, (kept, axis), {})

    def _call(self, before: fx.Node, target: Any, args: tuple[Any, ...], kwargs: Any) -> fx.Node:
        with self.graph.inserting_before(before):
            result = self.graph.call_function(target, args, dict(kwargs))
        result.meta.update(before.meta)
        result.meta["val"] = fake_result(result)
        return result


def _source(node: fx.Node) -> fx.Node | None:
    """The tensor, or the several views of one, whose memory a node shares; None if its memory is new."""
    if node.op != "call_function":
        return None
    if node.target is operator.getitem:
        (owner, _) = node.args
        return owner if isinstance(owner, fx.Node) and _source(owner) is not None else None
    schema = getattr(node.target, "_schema", None)
    if schema is None or not any(result.alias_info for result in schema.returns):
        return None
    shared = next((arg for arg, given in zip(node.args, schema.arguments) if given.alias_info), None)
    if not isinstance(shared, fx.Node) or not isinstance(shared.meta.get("val"), Tensor):
        return None
    return None if _copies(node, shared.meta["val"]) else shared


def _copies(node: fx.Node, source: Tensor) -> bool:
    """Whether an operator that may return a view returns a copy."""
    if node.target in _CASTS:
        return source.dtype != node.meta["val"].dtype
    if node.target == aten.contiguous.default:
        return not source.is_contiguous()
    if node.target not in _PERHAPS_VIEWS:
        return False
    try:
        source.view(node.meta["val"].shape)
    except (RuntimeError, ValueError):  # its strides do not allow it
        return True
    return False


def _start(node: fx.Node) -> fx.Node:
    """The node that allocated a tensor's memory."""
    while (source := _source(node)) is not None:
        node = source
    return node
