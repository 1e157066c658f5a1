"""Lowerings of attention get its arguments by the names that the operator's schema gives them."""

from __future__ import annotations

import torch
from attrs import fields

from ditto.lowering.attention import by_name
from ditto.lowering.registry import call
from ditto.ops.attention import AttentionArguments

ATTENTION = torch.ops.ditto.attention.default
NAMES = [argument.name for argument in ATTENTION._schema.arguments]


def test_arguments_have_the_names_and_the_order_of_the_schema():
    assert [field.name for field in fields(AttentionArguments)] == NAMES


def test_a_lowering_gets_arguments_by_name_however_a_node_gives_them():
    received = []
    lowering = by_name(lambda net, given: received.append((net, given)))
    values = dict(zip(NAMES, ("q", "k", "v", None, "s", 0.5, True, 3, 2.0, 7), strict=True))
    call(ATTENTION, lowering, "net", tuple(values.values()), {})
    call(ATTENTION, lowering, "net", ("q", "k", "v"), {name: values[name] for name in NAMES[3:]})
    assert received == [("net", AttentionArguments(**values))] * 2
    assert received[0][1].args == tuple(values.values())
