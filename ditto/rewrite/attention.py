"""Recognition of torch's `scaled_dot_product_attention`."""

from __future__ import annotations

import torch

from ditto.errors import ModelError, at
from ditto.ops.attention import AttentionArguments
from ditto.program import Program
from ditto.rewrite.rule import arguments


def recognise_sdpa(program: Program) -> int:
    """Replace `aten.scaled_dot_product_attention` by `ditto.attention`; return the number of replacements.

    Raises:
        ModelError: the attention has dropout, as in training.
    """
    count = 0
    for node in list(program.graph.nodes):
        if node.target != torch.ops.aten.scaled_dot_product_attention.default:
            continue
        given = arguments(node)
        query = given["query"].meta["val"]
        with at(program.place(node)):
            if given["dropout_p"]:
                raise ModelError("attention drops weights", remedy="call `model.eval()` first")
            if query.dim() != 4:
                continue
        scale = given["scale"] if given["scale"] is not None else query.shape[-1] ** -0.5
        attention = AttentionArguments(
            query=given["query"],
            key=given["key"],
            value=given["value"],
            mask=given["attn_mask"],
            sinks=None,
            scale=float(scale),
            causal=bool(given["is_causal"]),
            window=0,
            softcap=0.0,
            layer=count,
        )
        with program.graph.inserting_before(node):
            replacement = program.graph.call_function(torch.ops.ditto.attention.default, attention.args)
        replacement.meta.update(node.meta)
        node.replace_all_uses_with(replacement)
        count += 1
    program.sweep()
    return count
