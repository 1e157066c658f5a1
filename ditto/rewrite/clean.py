"""Canonicalization: one operator for all casts, and no operators without effect."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from ditto.errors import UnsupportedFeature, at
from ditto.ops.traits import Trait, traits_of
from ditto.program import Program, is_mutating, memory

aten = torch.ops.aten

# Operators with two names in PyTorch.
_OTHER_NAMES: dict[Any, Any] = {
    aten.concat.default: aten.cat.default,
    aten.concatenate.default: aten.cat.default,
    aten.divide.Tensor: aten.div.Tensor,
    aten.multiply.Tensor: aten.mul.Tensor,
    aten.subtract.Tensor: aten.sub.Tensor,
}


def clean(program: Program) -> int:
    """Canonicalize a program; return the number of removed nodes, unused ones included.

    Casts become `aten.to.dtype`, views `aten.reshape` and concatenations `aten.cat`. Casts, reshapes, copies and
    dropouts without effect are removed, and so are empty operands of concatenations.
    """
    written = {memory(node) for node in program.graph.nodes if is_mutating(node)}
    for node in list(program.graph.nodes):
        if node.op != "call_function" or _is_written(node, written):
            continue
        if node.target in (aten.view.default, aten._unsafe_view.default):
            node.target = aten.reshape.default  # without strides, and without `view`'s requirements on them
        node.target = _OTHER_NAMES.get(node.target, node.target)
        if node.target == aten.cat.default:
            _clean_cat(node, written)
        if Trait.CASTS in traits_of(node.target):
            _clean_cast(program, node)
        elif _changes_nothing(node):
            node.replace_all_uses_with(node.args[0])
    return program.sweep()


def _clean_cast(program: Program, node: fx.Node) -> None:
    source = node.args[0]
    assert isinstance(source, fx.Node)
    wanted = node.meta["val"].dtype
    if source.meta["val"].dtype == wanted:
        node.replace_all_uses_with(source)
        return
    if node.target == aten.to.dtype and node.args == (source, wanted) and not node.kwargs:
        return
    with program.graph.inserting_before(node):
        cast = program.graph.call_function(aten.to.dtype, (source, wanted))
    cast.meta.update(node.meta)
    node.replace_all_uses_with(cast)


def _clean_cat(node: fx.Node, written: set[fx.Node]) -> None:
    """Remove empty operands of a concatenation, such as the unrotated rest of fully rotated heads."""
    kept = [part for part in node.all_input_nodes if all(not _is_zero(size) for size in part.meta["val"].shape)]
    if len(kept) != 1 or memory(kept[0]) in written or kept[0].meta["val"].dtype != node.meta["val"].dtype:
        return
    if _same_shape(kept[0], node):
        node.replace_all_uses_with(kept[0])


def _is_zero(size: Any) -> bool:
    return isinstance(size, int) and size == 0


def _changes_nothing(node: fx.Node) -> bool:
    source = node.args[0] if node.args else None
    if not isinstance(source, fx.Node):
        return False
    if not all(isinstance(part.meta.get("val"), torch.Tensor) for part in (source, node)):
        return False
    traits = traits_of(node.target)
    if Trait.COPIES in traits:
        return True
    if node.target == aten.dropout.default:
        return not node.args[2]
    same = bool(source.meta["val"].dtype == node.meta["val"].dtype and _same_shape(source, node))
    if Trait.SAME_IF_SHAPE in traits:
        return same
    if node.target in (aten.mul.Tensor, aten.div.Tensor):
        return same and isinstance(node.args[1], (int, float)) and node.args[1] == 1
    if node.target in (aten.add.Tensor, aten.sub.Tensor):
        return same and isinstance(node.args[1], (int, float)) and node.args[1] == 0
    return False


def _same_shape(left: fx.Node, right: fx.Node) -> bool:
    shapes = [tuple(str(size) for size in node.meta["val"].shape) for node in (left, right)]
    return shapes[0] == shapes[1]


def _is_written(node: fx.Node, written: set[fx.Node]) -> bool:
    """Whether a node or its source shares memory that is modified in place, so that a copy differs from its source."""
    source = node.args[0] if node.args else None
    return memory(node) in written or (isinstance(source, fx.Node) and memory(source) in written)


def refuse_writes(program: Program) -> int:
    """Refuse operators that modify their arguments: values of a network are immutable.

    Raises:
        UnsupportedFeature: an output depends on such an operator.
    """
    for node in program.graph.nodes:
        if node.op == "call_function" and is_mutating(node):
            with at(program.place(node)):
                raise UnsupportedFeature(
                    f"`{node.target}` writes into its argument",
                    remedy="write the model without in-place operators there",
                )
    return 0
