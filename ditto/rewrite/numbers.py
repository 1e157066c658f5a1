"""Numbers that follow from constants of a model alone, computed once: quantiles, scales, logarithms."""

from __future__ import annotations

import torch
from torch import Tensor, fx
from torch._ops import OpOverload

from ditto.program import Program, evaluate, is_mutating

# Larger values stay operators: a network holds its constants, and computes weights from those of the checkpoint.
_MOST_ELEMENTS = 1


def compute_numbers(program: Program) -> int:
    """Replace operators on constants whose result is a single number by that number; return their count."""
    constant = {node for node in program.graph.nodes if node.op == "get_attr" and node.target in program.constants}
    found: list[fx.Node] = []
    for node in program.graph.nodes:
        if node.op != "call_function" or not _is_repeatable(node):
            continue
        if all(part in constant for part in node.all_input_nodes):
            constant.add(node)
            value = node.meta.get("val")
            is_static = isinstance(value, Tensor) and all(isinstance(size, int) for size in value.shape)
            if is_static and node.all_input_nodes and value.numel() <= _MOST_ELEMENTS:
                found.append(node)
    found = [node for node in found if any(user not in constant for user in node.users)]
    for node in found:
        (value,) = evaluate(program, {}, _no_parameter, (node,))
        with program.graph.inserting_before(node):
            node.replace_all_uses_with(program.constant(value.to(node.meta["val"].dtype), "number"))
    program.sweep()
    return len(found)


def _is_repeatable(node: fx.Node) -> bool:
    """Whether a node computes the same each time and changes nothing."""
    if not isinstance(node.target, OpOverload):
        return True  # an element of several results
    return torch.Tag.nondeterministic_seeded not in node.target.tags and not is_mutating(node)


def _no_parameter(name: str) -> Tensor:
    raise LookupError(f"`{name}` is a weight")
