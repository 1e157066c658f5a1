"""Only the last tokens' logits are wanted: choose them as early as the model allows.

Everything that treats each position on its own gives the same rows whether the others are there or not, so the choice
moves up through it: the output projection, the final norm, the last decoder layer's MLP, up to the last attention.
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
    """Move `ditto.last_tokens` or its packed form up through operators that nobody else reads. Returns through how
    many."""
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
                chosen[part, indices] = _choose(program, part, lasts[0])
        with program.graph.inserting_before(lasts[0]):
            made = program.graph.node_copy(node, partial(_replaced, {part: chosen[part, indices] for part in rows}))
        made.meta.update(node.meta)
        made.meta["val"] = lasts[0].meta["val"]
        for last in lasts:
            last.replace_all_uses_with(made)
            program.graph.erase_node(last)
        program.graph.erase_node(node)
        moved += 1
    for choice in chosen.values():
        if choice.users:  # else it has moved further up. As late as can be: not between a sum and the norm behind it
            min(choice.users).prepend(choice)
    return moved


def _choose(program: Program, part: fx.Node, last: fx.Node) -> fx.Node:
    """The last tokens of `part`, chosen as `last` chooses them; placed where whatever may come to use it can."""
    with program.graph.inserting_after(part):
        made = program.graph.call_function(last.target, (part, last.args[1]))  # type: ignore[arg-type]
    made.meta.update(last.meta)
    value, rows = part.meta["val"], last.meta["val"]
    made.meta["val"] = rows.new_empty((*rows.shape[:-1], value.shape[-1]), dtype=value.dtype)
    return made


def _replaced(replacements: dict[fx.Node, fx.Node], node: fx.Node) -> fx.Node:
    return replacements.get(node, node)


def _is_positionwise(node: fx.Node) -> bool:
    """Whether each position of a result [B, S, width] depends on that position of the operands alone."""
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
    """Whether an operand without rows of its own is spread over them by position, as [1, S, width] or [S, width]."""
    value = part.meta["val"]
    spread = isinstance(value, Tensor) and value.dim() > 1 and str(value.shape[-2]) != "1"
    return spread and Trait.ELEMENTWISE in traits_of(source.target)
