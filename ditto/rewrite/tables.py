"""Precompute functions of token positions as tables.

Cosines and sines of rotary embedding depend only on the position, whatever scaling a model applies to its frequencies.
A table by position replaces the operators that compute them.
"""

from __future__ import annotations

import torch
from loguru import logger
from torch import Tensor, fx
from torch._ops import OpOverload

from ditto.network.spec import FLOATING
from ditto.program import Program, evaluate

aten = torch.ops.aten


def tabulate(program: Program, positions: str, count: int) -> int:
    """Replace floating functions of the input `positions` by table lookups; return the number of tables.

    Args:
        positions: name of an integer input [B, S] or [S].
        count: number of positions; they are 0 to count - 1.
    """
    source = next((node for node in program.inputs if node.target == positions), None)
    if source is None:
        return 0
    replaced = 0
    for node in _candidates(program, source):
        table = _table(program, node, source, count)
        if table is None:
            continue
        with program.graph.inserting_before(node):
            constant = program.constant(table, "table")
            rows = program.graph.call_function(aten.embedding.default, (constant, _index(node, source)))
        rows.meta.update(node.meta)
        node.replace_all_uses_with(rows)
        replaced += 1
    program.sweep()
    return replaced


def _index(node: fx.Node, source: fx.Node) -> fx.Node:
    """The node with the positions in the shape of `node` without its last axis.

    It is the source itself, or the source with a leading batch axis.
    """
    wanted = [str(size) for size in node.meta["val"].shape[:-1]]
    queue, seen = [source], {source}
    while queue:
        current = queue.pop(0)
        value = current.meta["val"]
        if [str(size) for size in value.shape] == wanted and value.dtype == source.meta["val"].dtype:
            return current
        for user in current.users:
            if user.target == aten.unsqueeze.default and user.args[1] == 0 and user not in seen:
                seen.add(user)
                queue.append(user)
    return source


def _candidates(program: Program, source: fx.Node) -> list[fx.Node]:
    """Floating nodes [*positions, width] computed from positions and constants alone, the last of each chain."""
    dependent: set[fx.Node] = {source}
    constant: set[fx.Node] = set()
    for node in program.graph.nodes:
        if node.op == "get_attr" and node.target in program.constants:
            constant.add(node)
        elif node.op == "call_function":
            inputs = node.all_input_nodes
            if _is_repeatable(node) and all(part in constant for part in inputs):
                constant.add(node)
            elif _of_sizes(node) or (inputs and all(part in dependent or part in constant for part in inputs)):
                dependent.add(node)

    def is_table_like(node: fx.Node) -> bool:
        value = node.meta.get("val")
        if node not in dependent or node is source or not isinstance(value, Tensor) or value.dtype not in FLOATING:
            return False
        if value.dim() < 2 or not isinstance(value.shape[-1], int):
            return False
        rows = _index(node, source).meta["val"].shape
        return [str(size) for size in rows] == [str(size) for size in value.shape[:-1]]

    likely = [node for node in program.graph.nodes if is_table_like(node)]
    return [node for node in likely if any(not is_table_like(user) for user in node.users)]


def _is_repeatable(node: fx.Node) -> bool:
    """Whether a node with operands computes the same each time, or one without operands that is no size does."""
    if node.all_input_nodes:
        return True
    return isinstance(node.target, OpOverload) and torch.Tag.nondeterministic_seeded not in node.target.tags


def _of_sizes(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), (int, torch.SymInt))


def _table(program: Program, node: fx.Node, source: fx.Node, count: int) -> Tensor | None:
    """The node's rows for positions 0 to count - 1, or None if a row depends on other positions, too."""
    batched = source.meta["val"].dim() == 2
    dtype = source.meta["val"].dtype

    def rows(positions: Tensor) -> Tensor:
        shaped = positions.to(dtype)[None] if batched else positions.to(dtype)
        (value,) = evaluate(program, {str(source.target): shaped}, _no_parameter, (node,))
        return value.reshape(len(positions), -1)

    try:
        table = rows(torch.arange(count))
        shuffled = torch.randperm(count, generator=torch.Generator().manual_seed(0))[: max(count // 2, 1)]
        # The first and last position alone reveal a dependence on the minimum and maximum of a sequence.
        probes = (shuffled, torch.tensor([0]), torch.tensor([count - 1]))
        same = all(torch.equal(rows(probe), table[probe]) for probe in probes)
    except Exception as error:
        logger.debug("{} is computed at run time: {}", node.name, error)
        return None
    return table.contiguous() if same else None


def _no_parameter(name: str) -> Tensor:
    raise LookupError(f"it depends on the weight `{name}`")
