"""Rewrite of a program over [1, tokens, width] to packed tokens [tokens, width].

The language model is captured with a batch of one, whose sequence is the packed tokens. The attention plugin itself
does the work between projections and attention (splitting heads, transposing, rotating, transposing back), so attention
becomes one operator. All other operators work on single tokens, so the batch axis can be removed.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from attrs import frozen
from torch import SymInt, Tensor, fx

from ditto.errors import UnsupportedFeature, at
from ditto.ops.packed import PackedAttentionArguments
from ditto.ops.traits import Trait, traits_of
from ditto.program import Program
from ditto.rewrite.rule import arguments, as_call

aten = torch.ops.aten
_ditto = torch.ops.ditto


@frozen
class _Heads:
    """Source [1, tokens, heads * width] of an attention operand, and its rotation."""

    source: fx.Node
    cos: fx.Node | None = None
    sin: fx.Node | None = None
    interleaved: bool = False

    def is_rotated_like(self, other: _Heads) -> bool:
        """Whether both are rotated by the same tables in the same way."""
        tables = ((self.cos, other.cos), (self.sin, other.sin))
        return self.interleaved == other.interleaved and all(_is_equal(*pair) for pair in tables)


def pack_attention(program: Program, positions: str) -> int:
    """Replace `ditto.attention` with `ditto.packed_attention`; return the count.

    Args:
        positions: name of the input of token positions; rope at these positions becomes part of the operator.
    Raises:
        UnsupportedFeature: attention is not causal, has its own mask, sinks, slopes, or values of another width.
    """
    count = 0
    for node in list(program.graph.nodes):
        if node.target == _ditto.attention.default:
            with at(program.place(node)):
                _pack(program, node, positions)
            count += 1
    program.sweep()
    return count


def _pack(program: Program, node: fx.Node, positions: str) -> None:
    given = arguments(node)
    if given["sinks"] is not None:
        raise UnsupportedFeature("attention has learned sinks", remedy="the attention plugin of this target has none")
    if given["slopes"] is not None:
        raise UnsupportedFeature(
            "attention scores get a bias by distance (ALiBi)", remedy="use a target without plugins for this model"
        )
    if given["key"].meta["val"].shape[3] != given["value"].meta["val"].shape[3]:
        raise UnsupportedFeature(
            "values have another width than keys", remedy="use a target without plugins for this model"
        )
    if given["mask"] is not None or given["spans"] is not None or not given["causal"]:
        raise UnsupportedFeature(
            "the decoder's attention is not causal", remedy="a KV cache needs every token to see only those before it"
        )
    graph = program.graph
    heads, kv_heads = (int(given[name].meta["val"].shape[1]) for name in ("query", "key"))
    with graph.inserting_before(node):
        parts = {name: _traced(program, given[name], positions) for name in ("query", "key", "value")}
        query, key = parts["query"], parts["key"]
        if not query.is_rotated_like(key) or parts["value"].cos is not None:
            parts = {name: _traced(program, given[name], None) for name in parts}
            query = parts["query"]
        packing = PackedAttentionArguments(
            qkv=_joined(program, [part.source for part in parts.values()]),
            cos=query.cos,
            sin=query.sin,
            heads=heads,
            kv_heads=kv_heads,
            interleaved=query.interleaved,
            scale=given["scale"],
            window=given["window"],
            softcap=given["softcap"],
            layer=given["layer"],
        )
        packed = graph.call_function(_ditto.packed_attention.default, packing.args)
        packed.meta.update(node.meta)
        packed.meta["val"] = _fake(packing)
        _replace_merged(program, node, packed)


def _traced(program: Program, operand: fx.Node, positions: str | None) -> _Heads:
    """Source of an operand [1, heads, tokens, width], as [1, tokens, heads * width].

    If rope at `positions` is recognised, the source is the tensor before rope.
    """
    found = _rope(program, operand, positions) if positions is not None else None
    inner = found.source if found is not None else operand
    graph = program.graph
    if inner.target == aten.transpose.int and {arguments(inner)["dim0"], arguments(inner)["dim1"]} == {1, 2}:
        rows = inner.args[0]
        assert isinstance(rows, fx.Node)
    else:
        rows = graph.call_function(aten.transpose.int, (inner, 1, 2))
        rows.meta.update(operand.meta)
        rows.meta["val"] = inner.meta["val"].transpose(1, 2)
    if rows.target in (aten.view.default, aten.reshape.default) and _is_merged(rows.args[0], rows):
        source = rows.args[0]
        assert isinstance(source, fx.Node)
    else:
        value = rows.meta["val"]
        size = int(value.shape[2]) * int(value.shape[3])
        source = graph.call_function(aten.reshape.default, (rows, [1, -1, size]))
        source.meta.update(operand.meta)
        source.meta["val"] = value.new_empty((1, value.shape[1], size))
    return _Heads(source) if found is None else _Heads(source, found.cos, found.sin, found.interleaved)


def _is_merged(source: Any, rows: fx.Node) -> bool:
    if not isinstance(source, fx.Node) or source.meta["val"].dim() != 3:
        return False
    have, split = source.meta["val"].shape, rows.meta["val"].shape
    return str(have[1]) == str(split[1]) and have[2] == split[2] * split[3]


def _rope(program: Program, operand: fx.Node, positions: str) -> _Heads | None:
    """Rope of an operand's first columns by constant tables and positions, or None."""
    rotated, whole = operand, operand
    if operand.target == aten.cat.default:  # partial rope: concatenation of rope(x[..., :r]) and x[..., r:]
        parts = arguments(operand)["tensors"]
        if len(parts) != 2 or arguments(operand)["dim"] != operand.meta["val"].dim() - 1:
            return None
        rotated, rest = parts
        if rotated.target != _ditto.rope.default or not _are_halves(rotated.args[0], rest):
            return None
        whole = rest.args[0]
    elif operand.target != _ditto.rope.default:
        return None
    given = arguments(rotated)
    source = given["positions"]
    if source.target == aten.unsqueeze.default:
        source = source.args[0]
    tables = (given["cos"], given["sin"])
    if source.op != "placeholder" or source.target != positions or not all(map(_is_constant(program), tables)):
        return None
    return _Heads(given["x"] if rotated is whole else whole, *tables, bool(given["interleaved"]))


def _is_equal(left: Any, right: Any) -> bool:
    """Whether two nodes are identical, or apply the same operator to equal arguments."""
    if left is right:
        return True
    nodes = isinstance(left, fx.Node) and isinstance(right, fx.Node)
    if not nodes or left.op != "call_function" or left.target != right.target or left.kwargs != right.kwargs:
        return False
    return len(left.args) == len(right.args) and all(
        _is_equal(*pair) or (not isinstance(pair[0], fx.Node) and pair[0] == pair[1])
        for pair in zip(left.args, right.args, strict=True)
    )


def _is_constant(program: Program) -> Any:
    def test(node: fx.Node) -> bool:
        inputs = node.all_input_nodes
        return program.is_constant(node) or (bool(inputs) and all(program.is_constant(part) for part in inputs))

    return test


def _are_halves(first: Any, rest: Any) -> bool:
    """Whether two nodes are the first columns of a tensor and all remaining columns."""
    if not all(isinstance(part, fx.Node) and part.target == aten.slice.Tensor for part in (first, rest)):
        return False
    left, right = arguments(first), arguments(rest)
    same = left["self"] is right["self"] and left["step"] == right["step"] == 1
    width = left["self"].meta["val"].shape[-1]
    axis = left["self"].meta["val"].dim() - 1
    ends = (left["start"] or 0) == 0 and left["end"] == right["start"] and int(right["end"] or width) >= width
    return bool(same and left["dim"] == right["dim"] == axis and ends)


def _joined(program: Program, parts: list[fx.Node]) -> fx.Node:
    """Concatenation of query, key and value of each token.

    This is the fused projection itself, if they are its slices.
    """
    sliced = [arguments(part) if part.target == aten.slice.Tensor else None for part in parts]
    if all(sliced):
        sources = {given["self"] for given in sliced if given is not None}
        bounds = [(given["start"] or 0, given["end"]) for given in sliced if given is not None]
        (source, *others) = sources
        width = source.meta["val"].shape[-1]
        starts = [0, *(end for _, end in bounds[:-1])]
        if not others and [start for start, _ in bounds] == starts and bounds[-1][1] >= width:
            return source
    joined = program.graph.call_function(aten.cat.default, (parts, -1))
    joined.meta.update(parts[0].meta)
    joined.meta["val"] = torch.cat([part.meta["val"] for part in parts], -1)
    return joined


def _replace_merged(program: Program, node: fx.Node, packed: fx.Node) -> None:
    """Replace attention with packed attention.

    Its result is [1, tokens, heads * width]. Users that merge the heads use it directly; for other users the heads are
    split again.
    """
    for user in list(node.users):
        if user.target == aten.transpose.int and {arguments(user)["dim0"], arguments(user)["dim1"]} == {1, 2}:
            for merged in list(user.users):
                if merged.target in (aten.view.default, aten.reshape.default) and merged.meta["val"].dim() == 3:
                    merged.replace_all_uses_with(packed)
                    program.graph.erase_node(merged)
            if not user.users:
                program.graph.erase_node(user)
    if node.users:
        value = node.meta["val"]
        shape = [1, -1, int(value.shape[1]), int(value.shape[3])]
        with program.graph.inserting_after(packed):
            split = program.graph.call_function(aten.view.default, (packed, shape))
            split.meta.update(node.meta)
            split.meta["val"] = value.transpose(1, 2)
        with program.graph.inserting_after(split):
            transposed = program.graph.call_function(aten.transpose.int, (split, 1, 2))
            transposed.meta.update(node.meta)
        node.replace_all_uses_with(transposed)


def _fake(packing: PackedAttentionArguments[fx.Node]) -> Any:
    value, heads = packing.qkv.meta["val"], packing.heads
    return value.new_empty((*value.shape[:-1], value.shape[-1] // (heads + 2 * packing.kv_heads) * heads))


_RESHAPES = frozenset({aten.view.default, aten.reshape.default, aten._unsafe_view.default})


def drop_batch(program: Program) -> int:
    """Remove the batch axis of size 1 from operators; return how many changed.

    Operators without a rule keep the axis: it is added to their operands, and removed from their result.
    """
    graph, dropped = program.graph, 0
    without: dict[fx.Node, fx.Node] = {}
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        if _adds_batch(node):
            without[node] = node.args[0]  # type: ignore[assignment]
            continue
        batched = [part for part in node.all_input_nodes if part in without]
        if not batched:
            if _splits_off_batch(node):
                with graph.inserting_before(node):
                    without[node] = _reshaped(graph, node, node.args[0], node.meta["val"].squeeze(0))
            continue
        if node.target in _RESHAPES and not _has_batch(node):
            with graph.inserting_before(node):
                reshaped = _reshaped(graph, node, without[batched[0]], node.meta["val"])
            node.replace_all_uses_with(reshaped)
            continue
        if node.target == aten.squeeze.dim and node.args[1] == 0 and node.args[0] in without:
            node.replace_all_uses_with(without[node.args[0]])  # type: ignore[index]
            continue
        call = _call_without(node, without)
        if call is None:
            _restore_batch(program, node, batched, without)
            if _has_batch(node):
                with graph.inserting_after(node):
                    without[node] = graph.call_function(aten.squeeze.dim, (node, 0))
                without[node].meta.update(node.meta)
                without[node].meta["val"] = node.meta["val"].squeeze(0)
            continue
        args, kwargs = call
        with graph.inserting_before(node):
            replacement = graph.call_function(node.target, args, kwargs)
        replacement.meta.update(node.meta)
        replacement.meta["val"] = _without_batch(node.meta["val"])
        without[node] = replacement
        dropped += 1
    for node in program.outputs:
        if node in without:
            _restore_batch(program, graph.find_nodes(op="output")[0], [node], without)
    program.sweep()
    return dropped


def _splits_off_batch(node: fx.Node) -> bool:
    """Whether a node reshapes packed tokens [tokens, ...] to add the batch axis."""
    if node.target not in _RESHAPES or not _has_batch(node):
        return False
    return isinstance(node.args[0].meta["val"].shape[0], SymInt)  # type: ignore[union-attr]


def _reshaped(graph: fx.Graph, node: fx.Node, source: Any, value: Tensor) -> fx.Node:
    """`source` reshaped to the shape of `value`, as a replacement for `node`."""
    if [str(size) for size in source.meta["val"].shape] == [str(size) for size in value.shape]:
        return source
    (sizes,) = node.args[1:]
    reshaped = graph.call_function(aten.reshape.default, (source, sizes[len(sizes) - value.dim() :]))  # type: ignore[index, arg-type]
    reshaped.meta.update(node.meta)
    reshaped.meta["val"] = value
    return reshaped


def _without_batch(value: Any) -> Any:
    return [_without_batch(part) for part in value] if isinstance(value, (list, tuple)) else value.squeeze(0)


def _adds_batch(node: fx.Node) -> bool:
    """Whether a node adds the batch axis to an input of packed tokens."""
    unsqueezed = node.target == aten.unsqueeze.default and node.args[1:] == (0,)
    return unsqueezed and _is_packed_input(node.args[0])


def _is_packed_input(node: Any) -> bool:
    return isinstance(node, fx.Node) and node.op == "placeholder" and node.meta["val"].dim() == 1


def _has_batch(node: fx.Node) -> bool:
    value = node.meta.get("val")
    if not isinstance(value, Tensor) or value.dim() < 2:
        return False
    return isinstance(value.shape[0], int) and value.shape[0] == 1  # a size that depends on data is compared with none


def _call_without(node: fx.Node, without: Mapping[fx.Node, fx.Node]) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Arguments of a node without the batch axis, or None if there is no rule."""
    if node.target is operator.getitem:
        return (without[node.args[0]], node.args[1]), {}  # type: ignore[index]
    traits, batched = traits_of(node.target), [part for part in node.all_input_nodes if part in without]
    others = [part for part in node.all_input_nodes if part not in without and isinstance(part.meta.get("val"), Tensor)]
    rank = max(part.meta["val"].dim() for part in batched)
    if any(part.meta["val"].dim() >= rank for part in others) and Trait.LOOKUP not in traits:
        return None  # broadcasts against the batch axis
    if Trait.ANY_RANK in traits:
        return _mapped(node.args, without), dict(_mapped(node.kwargs, without))
    given = arguments(node)
    if Trait.NAMES_AXES in traits:
        for name in given.keys() & {"dim", "dim0", "dim1"}:
            axes = given[name]
            if isinstance(axes, int) and axes > 0:
                given[name] = axes - 1
            elif isinstance(axes, (list, tuple)) and axes and 0 not in axes:
                given[name] = [axis - 1 for axis in axes]
            else:
                return None
    elif Trait.NAMES_SIZES in traits:
        name = "size" if "size" in given else "shape"
        if not given[name] or given[name][0] != 1:
            return None
        given[name] = list(given[name][1:])
    else:
        return None
    args, kwargs = as_call(node.target, given)
    return _mapped(args, without), _mapped(kwargs, without)


def _mapped(argument: Any, without: Mapping[fx.Node, fx.Node]) -> Any:
    return fx.map_arg(argument, lambda part: without.get(part, part))


def _restore_batch(program: Program, node: fx.Node, batched: list[fx.Node], without: Mapping[fx.Node, fx.Node]) -> None:
    """Add the batch axis to the operands of a node without a rule."""
    for part in batched:
        with program.graph.inserting_before(node):
            back = program.graph.call_function(aten.unsqueeze.default, (without[part], 0))
        back.meta.update(part.meta)
        node.replace_input_with(part, back)
