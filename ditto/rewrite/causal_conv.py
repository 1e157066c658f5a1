"""Operators with a state: recognition of causal convolutions, and numbers that name states."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from ditto.program import Program
from ditto.rewrite.rule import arguments, as_call

aten = torch.ops.aten


def recognise_causal_convs(program: Program) -> int:
    """Replace convolutions that see a token and those before it by `ditto.causal_conv`; return their number.

    Models pad both ends of a sequence and take as many results as there are tokens:
    `conv1d(x, weight, bias, padding=K - 1, groups=C)[:, :, :S]`.
    """
    count = 0
    for node in list(program.graph.nodes):
        if node.target != aten.conv1d.default or not _is_of_channels(node):
            continue
        given = arguments(node)
        if not all(_takes_tokens(user, given["input"]) for user in node.users):
            continue
        with program.graph.inserting_before(node):
            args = (given["input"], given["weight"], given["bias"], count)
            replacement = program.graph.call_function(torch.ops.ditto.causal_conv.default, args)
        replacement.meta.update(node.meta)
        replacement.meta["val"] = given["input"].meta["val"]
        for user in list(node.users):
            user.replace_all_uses_with(replacement)
        count += 1
    program.sweep()
    return count


def number_recurrences(program: Program) -> int:
    """Number the recurrences of a decoder, in order; return how many there are."""
    found = [node for node in program.graph.nodes if node.target == torch.ops.ditto.linear_attention.default]
    for number, node in enumerate(found):
        node.args, node.kwargs = as_call(node.target, {**arguments(node), "number": number})
    return len(found)


def _is_of_channels(node: fx.Node) -> bool:
    """Whether a convolution is of each channel, [B, C, S], and padded by all taps but one."""
    given = arguments(node)
    x, weight = given["input"].meta["val"], given["weight"].meta["val"]
    channels, _, taps = weight.shape
    numbers = (list(given[name]) for name in ("stride", "padding", "dilation"))
    is_padded = list(numbers) == [[1], [taps - 1], [1]] and taps > 1
    return bool(is_padded and x.dim() == 3 and given["groups"] == channels and x.shape[1] == channels)


def _takes_tokens(user: fx.Node, x: Any) -> bool:
    """Whether a node takes the results of a convolution for the tokens of its operand: all but the last K - 1."""
    if user.target != aten.slice.Tensor:
        return False
    given = arguments(user)
    is_first = given["dim"] == 2 and given["start"] in (None, 0) and given["step"] == 1
    return is_first and str(user.meta["val"].shape[2]) == str(x.meta["val"].shape[2])
