"""Lowerings of attention get its arguments by the names that the operator's schema gives them; attention in elementary
layers is the attention operator."""

from __future__ import annotations

import pytest
import torch
from attrs import fields

from ditto import ops
from ditto.lowering.attention import ScoreTerms, by_name, decomposed_attention
from ditto.lowering.registry import call
from ditto.ops.attention import AttentionArguments
from tests.support.attention import (
    FLOATS,
    attention_network,
    check,
    check_that_unseen_keys_count_for_nothing,
    operands,
)

ATTENTION = torch.ops.ditto.attention.default
NAMES = [argument.name for argument in ATTENTION._schema.arguments]


def test_arguments_have_the_names_and_the_order_of_the_schema():
    assert [field.name for field in fields(AttentionArguments)] == NAMES


def test_a_lowering_gets_arguments_by_name_however_a_node_gives_them():
    received = []
    lowering = by_name(lambda net, given: received.append((net, given)))
    values = dict(zip(NAMES, ("q", "k", "v", None, "s", 0.5, True, 3, 2.0, 7, "m", "i", True), strict=True))
    call(ATTENTION, lowering, "net", tuple(values.values()), {})
    call(ATTENTION, lowering, "net", ("q", "k", "v"), {name: values[name] for name in NAMES[3:]})
    assert received == [("net", AttentionArguments(**values))] * 2
    assert received[0][1].args == tuple(values.values())


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("groups", [4, 2, 1])
@pytest.mark.parametrize("softcap", [0.0, 0.7])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dynamic", [False, True])
def test_decomposed_attention_is_the_operator(dtype, groups, softcap, masked, dynamic):
    tensors = operands(groups, dtype)
    if not masked:
        del tensors["mask"]
    network = attention_network(decomposed_attention, tensors, dynamic, 0.25, softcap)
    wanted = ops.attention(*(tensors[name] for name in "qkv"), tensors.get("mask"), None, 0.25, False, 0, softcap, 0)
    check(network, tensors, wanted)


@pytest.mark.parametrize("groups", [4, 2])
@pytest.mark.parametrize("shape", [(2, 4, 5, 5), (1, 4, 5, 5), (2, 1, 5, 5), (1, 1, 1, 5)])
def test_a_bias_is_added_to_the_scores(groups, shape):
    tensors = operands(groups, torch.float32)
    tensors["mask"] = torch.randn(shape, generator=torch.Generator().manual_seed(0))

    def lowering(net, q, k, v, bias):
        return decomposed_attention(net, q, k, v, 0.25, 0.0, None, ScoreTerms(bias=bias))

    wanted = ops.attention(*(tensors[name] for name in ("q", "k", "v", "mask")), None, 0.25, False, 0, 0.0, 0)
    check(attention_network(lowering, tensors, False), tensors, wanted)


@pytest.mark.parametrize("softcap", [0.0, 3.0])
def test_keys_that_no_query_sees_count_for_nothing_whatever_they_hold(softcap):
    check_that_unseen_keys_count_for_nothing(decomposed_attention, 1.0, softcap)
