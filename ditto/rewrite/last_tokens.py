"""Select the last tokens as early as possible, as only their logits are needed.

The results of positionwise operators do not depend on other positions, so the selection moves up through them: the
output projection, the final norm, the MLP of the last decoder layer, up to the last attention.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, fx

from ditto.ops.traits import Trait, traits_of
from ditto.program import Program
from ditto.rewrite.rule import arguments

_LAST = frozenset({torch.ops.ditto.last_tokens.default, torch.ops.ditto.packed_last_tokens.default})


def choose_last_tokens_early(program: Program) -> int:
    """Move `ditto.last_tokens`, or its packed form, up through operators without other users.

    Returns the number of operators that it moved through.
    """
    moved = 0
    chosen: dict[tuple[fx.Node, fx.Node], fx.Node] = {}
    for node in reversed(list(program.graph.nodes)):
        lasts = list(node.users)
        if not lasts or any(user.target not in _LAST for user in lasts) or not _is_positionwise(node):
            continue
        indices = lasts[0].args[1]
        assert isinstance(indices, fx.Node)
        rows = [part for part in node.all_input_nodes if _has_positions(part, node)]
        others = [part for part in node.all_input_nodes if part not in rows]
        if not rows or any(_varies_by_position(part, node) for part in others):
            continue
        if any(last.args[1] is not indices for last in lasts) or any(part < indices for part in rows):
            continue
        for part in rows:
            if (part, indices) not in chosen:
                chosen[part, indices] = _select(program, part, lasts[0])
        with program.graph.inserting_before(lasts[0]):
            copy = program.graph.node_copy(node, partial(_replaced, {part: chosen[part, indices] for part in rows}))
        copy.meta.update(node.meta)
        copy.meta["val"] = lasts[0].meta["val"]
        for last in lasts:
            last.replace_all_uses_with(copy)
            program.graph.erase_node(last)
        program.graph.erase_node(node)
        moved += 1
    for choice in chosen.values():
        if choice.users:  # else it has moved further up. As late as possible: not between a sum and the norm after it
            min(choice.users).prepend(choice)
    return moved


def _select(program: Program, part: fx.Node, last: fx.Node) -> fx.Node:
    """Select the last tokens of `part` as `last` does, at a place before all possible users."""
    with program.graph.inserting_after(part):
        selection = program.graph.call_function(last.target, (part, last.args[1]))  # type: ignore[arg-type]
    selection.meta.update(last.meta)
    value, rows = part.meta["val"], last.meta["val"]
    selection.meta["val"] = rows.new_empty((*rows.shape[:-1], value.shape[-1]), dtype=value.dtype)
    return selection


def _replaced(replacements: dict[fx.Node, fx.Node], node: fx.Node) -> fx.Node:
    return replacements.get(node, node)


def _is_positionwise(node: fx.Node) -> bool:
    """Whether each position of a result [B, S, width] depends only on that position of the operands."""
    traits = traits_of(node.target)
    if Trait.ELEMENTWISE in traits:
        return True
    if Trait.ROWWISE in traits:
        return len(arguments(node).get("normalized_shape", "1")) == 1
    if traits & (Trait.ALONG_DIM | Trait.MOVES) and isinstance(node.meta.get("val"), Tensor):
        return arguments(node).get("dim") in (node.meta["val"].dim() - 1, [node.meta["val"].dim() - 1])
    return False


def _has_positions(part: fx.Node, source: fx.Node) -> bool:
    """Whether an operand has a row for each position of its consumer: [B, S, width], not a weight or a scalar."""
    value, wanted = part.meta["val"], source.meta["val"]
    if not isinstance(value, Tensor) or value.dim() != 3 or wanted.dim() != 3:
        return False
    return [str(size) for size in value.shape[:2]] == [str(size) for size in wanted.shape[:2]]


def _varies_by_position(part: fx.Node, source: fx.Node) -> bool:
    """Whether an operand is broadcast over sequences but has an entry per position: [1, S, width] or [S, width]."""
    value = part.meta["val"]
    spread = isinstance(value, Tensor) and value.dim() > 1 and str(value.shape[-2]) != "1"
    return spread and Trait.ELEMENTWISE in traits_of(source.target)
