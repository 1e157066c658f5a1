"""Attention as one layer is the attention operator."""

from __future__ import annotations

import pytest
import torch

from ditto import LlmBuilder, ops
from ditto.network.layers import Attention, ElementWise
from ditto.targets.tensorrt.attention import fused_attention
from tests.support.attention import (
    FLOATS,
    attention_network,
    check,
    check_that_unseen_keys_count_for_nothing,
    operands,
)
from tests.support.models import llama


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("groups", [4, 2, 1])
@pytest.mark.parametrize("form", ["plain", "masked", "causal"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_fused_attention_is_the_operator(dtype, groups, form, dynamic):
    tensors = operands(groups, dtype)
    if form != "masked":
        del tensors["mask"]
    causal = form == "causal"
    network = attention_network(fused_attention, tensors, dynamic, 0.25, causal)
    wanted = ops.attention(*(tensors[name] for name in "qkv"), tensors.get("mask"), None, 0.25, causal, 0, 0.0, 0)
    check(network, tensors, wanted)


def test_keys_that_no_query_sees_count_for_nothing_whatever_they_hold():
    check_that_unseen_keys_count_for_nothing(fused_attention, 1.0, False)


def test_a_scale_of_one_costs_nothing():
    tensors = operands(2, torch.float16)
    one, two = (attention_network(fused_attention, tensors, False, scale, False) for scale in (1.0, 2.0))
    assert [type(node.layer) for node in one.nodes] == [Attention]
    assert ElementWise in [type(node.layer) for node in two.nodes]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("width", [3, 12, 16])
@pytest.mark.parametrize("dynamic", [False, True])
def test_heads_of_half_precision_have_a_width_that_tensorrt_computes_rightly(dtype, width, dynamic):
    tensors = operands(2, dtype, width)
    del tensors["mask"]
    network = attention_network(fused_attention, tensors, dynamic, 0.25, True)
    (node,) = (node for node in network.nodes if isinstance(node.layer, Attention))
    wide = {network.value(name).spec.shape[3] for name in node.inputs}
    assert wide == {width if dtype == torch.float32 else -(-width // 8) * 8}
    wanted = ops.attention(*(tensors[name] for name in "qkv"), None, None, 0.25, True, 0, 0.0, 0)
    check(network, tensors, wanted)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_tensorrt_builds_half_precision_heads_of_any_width(dtype, tmp_path):
    model = llama(num_hidden_layers=1, head_dim=10)  # without the zeros, TensorRT-RTX 1.6 fails on it
    LlmBuilder.from_model(model).with_target("tensorrt-rtx").with_dtype(dtype).build(tmp_path / "engine")
