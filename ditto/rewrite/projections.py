"""Fusion of linear layers with the same input: query, key and value; gate and up."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import fx

from ditto.program import Program
from ditto.rewrite.rule import arguments

aten = torch.ops.aten


def fuse_projections(program: Program) -> int:
    """Fuse linear layers that read the same tensor into one with concatenated weights; its users read slices.

    The layers have constant weights, and either all or none of them has a bias. Returns the number of fused layers.
    """
    groups: dict[tuple[fx.Node, bool], list[fx.Node]] = defaultdict(list)
    for node in program.graph.nodes:
        if node.target == aten.linear.default:
            given = arguments(node)
            parts = [given["weight"]] + ([given["bias"]] if given["bias"] is not None else [])
            if all(program.is_constant(part) for part in parts):
                groups[given["input"], given["bias"] is not None].append(node)
    joined = 0
    for (source, has_bias), nodes in groups.items():
        if len(nodes) > 1:
            _join(program, source, nodes, has_bias)
            joined += len(nodes)
    program.sweep()
    return joined


def _join(program: Program, source: fx.Node, nodes: list[fx.Node], has_bias: bool) -> None:
    graph, first = program.graph, nodes[0]
    given = [arguments(node) for node in nodes]
    with graph.inserting_before(first):
        for node in nodes:  # constants may be defined after the first use
            for part in node.all_input_nodes:
                if part.op == "get_attr" and first < part:
                    first.prepend(part)
        weight = _concatenated(graph, [arguments["weight"] for arguments in given])
        bias = _concatenated(graph, [arguments["bias"] for arguments in given]) if has_bias else None
        whole = graph.call_function(aten.linear.default, (source, weight, bias))
        widths = [node.meta["val"].shape[-1] for node in nodes]
        whole.meta.update(first.meta)
        value = first.meta["val"]
        whole.meta["val"] = value.new_empty((*value.shape[:-1], sum(widths)))
        axis, start = value.dim() - 1, 0
        for node, width in zip(nodes, widths, strict=True):
            part = graph.call_function(aten.slice.Tensor, (whole, axis, start, start + width))
            part.meta.update(node.meta)
            node.replace_all_uses_with(part)
            start += width


def _concatenated(graph: fx.Graph, parts: list[fx.Node]) -> fx.Node:
    joined = graph.call_function(aten.cat.default, (parts, 0))
    values = [part.meta["val"] for part in parts]
    joined.meta["val"] = values[0].new_empty((sum(value.shape[0] for value in values), *values[0].shape[1:]))
    return joined
