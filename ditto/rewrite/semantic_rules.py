"""Rules for how Ditto's own operators propagate the token axes of their operands (see `token_rules`)."""

from __future__ import annotations

import torch

from ditto.rewrite.layout import Layout, is_named, plain
from ditto.rewrite.token_rules import TOGETHER, Call, Mixes, refuse_named, refuse_named_weights, rule

_ditto = torch.ops.ditto

_SOMEWHERE_ELSE = "attends to something other than the tokens of its sequence"


@rule(_ditto.attention)
def _attention(call: Call) -> list[Layout]:
    query, key, value = (call.of(call.given[name]) for name in ("query", "key", "value"))
    for layout in (query, key, value):
        refuse_named(layout, (1, 3), "takes tokens for heads or columns")
        if (layout[0], layout[2]) != (query[0], query[2]):
            raise Mixes(_SOMEWHERE_ELSE)
    if not is_named(query[2]):
        raise Mixes(_SOMEWHERE_ELSE)
    for name in ("sinks", "slopes"):
        if call.given[name] is not None:
            refuse_named_weights(call, [call.given[name]])
    if call.given["spans"] is not None and call.of(call.given["spans"]) != (query[0], query[2]):
        raise Mixes(_SOMEWHERE_ELSE)
    return [(*query[:3], value[3])]


@rule(_ditto.causal_conv)
def _causal_conv(call: Call) -> list[Layout]:
    layout = call.first
    refuse_named(layout, [1], "takes tokens for channels")
    if not is_named(layout[2]):
        raise Mixes("convolves over something other than the tokens of its sequence")
    refuse_named_weights(call, call.tensors[1:])
    return [layout]


@rule(_ditto.linear_attention)
def _linear_attention(call: Call) -> list[Layout]:
    value = call.of(call.given["value"])
    for node in call.tensors:
        layout = call.of(node)
        refuse_named(layout, range(2, len(layout)), "takes tokens for heads or columns")
        if layout[:2] != value[:2] or not is_named(layout[1]):
            raise Mixes(_SOMEWHERE_ELSE)
    return [value]


@rule(_ditto.rms_norm)
def _rms_norm(call: Call) -> list[Layout]:
    refuse_named(call.first, [len(call.first) - 1], "normalises over the tokens of a sequence")
    return [call.first]


@rule(_ditto.rope)
def _rope(call: Call) -> list[Layout]:
    return [call.first]


@rule(_ditto.prompt_rows)
def _prompt_rows(call: Call) -> list[Layout]:
    return [(*call.first, (call.results[0][-1],))]  # type: ignore[list-item] - a width is a number


@rule(_ditto.last_tokens, _ditto.packed_last_tokens)
def _last_tokens(call: Call) -> list[Layout]:
    layout, chosen = call.first, call.of(call.tensors[1])
    row = chosen if "ends" in call.given else ((),)
    return [(*layout[:-2], *row, layout[-1])]


@rule(_ditto.expert_linear, _ditto.expert_sum)
def _experts(call: Call) -> list[Layout]:
    rows = call.of(call.given["x"])
    refuse_named_weights(call, [call.given[name] for name in ("weight", "bias") if call.given[name] is not None])
    others = [call.of(call.given[name]) for name in ("experts", "shares") if name in call.given]
    for layout in (rows, *others):
        refuse_named(layout, range(1, len(layout)), TOGETHER)
        if layout[0] != rows[0]:
            raise Mixes("chooses the experts of a token by other tokens")
    return [(rows[0], *plain(call.results[0][1:]))]
