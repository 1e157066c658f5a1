"""Attention in TensorRT's layers, fused or written out, is the attention operator."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch.testing import assert_close

from ditto import ops
from ditto.lowering import Lowering
from ditto.network import Network, Spec, symbol
from ditto.network.layers import Attention, ElementWise
from ditto.reference import TOLERANCE, Constants, run
from ditto.targets.tensorrt.attention import fused, written_out
from tests.support.layers import NoTensors, emitted
from tests.test_program import FLOATS

BATCH, HEADS, LENGTH, WIDTH = 2, 4, 5, 8


def _operands(groups, dtype):
    generator = torch.Generator().manual_seed(groups)
    shapes = [(BATCH, heads, LENGTH, WIDTH) for heads in (HEADS, groups, groups)]
    tensors = {n: torch.randn(s, generator=generator).to(dtype) for n, s in zip(("q", "k", "v"), shapes)}
    tensors["mask"] = torch.rand(BATCH, 1, LENGTH, LENGTH, generator=generator) > 0.5
    tensors["mask"] |= torch.eye(LENGTH, dtype=torch.bool)
    return tensors


def _network(lowering, tensors, dynamic, *facts):
    """A network of one attention; its batch and sequence may be dynamic."""
    net = Lowering(Network("test"), None, None)

    def spec(name, x):
        if not dynamic:
            return Spec.of(x)
        batch, sequence = symbol("batch"), symbol("sequence")
        return Spec((batch, x.shape[1], sequence, sequence if name == "mask" else WIDTH), x.dtype)

    values = {name: net.input(name, spec(name, x)) for name, x in tensors.items()}
    net.network.output("result", lowering(net, values["q"], values["k"], values["v"], *facts, values.get("mask")))
    return net.network


def _check(network, tensors, wanted):
    emitted(network)
    found = run(network, tensors, Constants(network, NoTensors()))["result"]
    assert_close(found, wanted, **TOLERANCE[wanted.dtype])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("groups", [4, 2, 1])
@pytest.mark.parametrize("form", ["plain", "masked", "causal"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_fused_attention_is_the_operator(dtype, groups, form, dynamic):
    tensors = _operands(groups, dtype)
    if form != "masked":
        del tensors["mask"]
    causal = form == "causal"
    network = _network(fused, tensors, dynamic, 0.25, causal)
    wanted = ops.attention(*(tensors[name] for name in "qkv"), tensors.get("mask"), None, 0.25, causal, 0, 0.0, 0)
    _check(network, tensors, wanted)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("groups", [4, 2, 1])
@pytest.mark.parametrize("softcap", [0.0, 0.7])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dynamic", [False, True])
def test_attention_written_out_is_the_operator(dtype, groups, softcap, masked, dynamic):
    tensors = _operands(groups, dtype)
    if not masked:
        del tensors["mask"]
    network = _network(written_out, tensors, dynamic, 0.25, softcap)
    wanted = ops.attention(*(tensors[name] for name in "qkv"), tensors.get("mask"), None, 0.25, False, 0, softcap, 0)
    _check(network, tensors, wanted)


def test_keys_that_no_query_sees_count_for_nothing_whatever_they_hold():
    tensors = _operands(2, torch.float32)
    tensors["mask"] = torch.ones(BATCH, 1, LENGTH, LENGTH, dtype=torch.bool).tril()
    changed = {**tensors, "k": tensors["k"].clone(), "v": tensors["v"].clone()}
    changed["k"][:, :, -1], changed["v"][:, :, -1] = 1e4, -1e4
    for lowering, fact in ((fused, False), (written_out, 3.0)):
        network = _network(lowering, tensors, False, 1.0, fact)
        results = [run(network, given, Constants(network, NoTensors()))["result"] for given in (tensors, changed)]
        assert all(torch.equal(a[:, :, :-1], b[:, :, :-1]) for a, b in pairwise(results))


def test_a_scale_of_one_costs_nothing():
    tensors = _operands(2, torch.float16)
    one, two = (_network(fused, tensors, False, scale, False) for scale in (1.0, 2.0))
    assert [type(node.layer) for node in one.nodes] == [Attention]
    assert ElementWise in [type(node.layer) for node in two.nodes]
