"""Passes run in order; each is logged with what it did and did not, and dumped if it did something."""

from __future__ import annotations

import torch
from attrs import frozen
from loguru import logger

from ditto.dumps import dumping
from ditto.network import network_text
from ditto.passes import SIMPLIFY, NetworkPass, PassResult, run_passes
from ditto.passes.dead_layers import DeadLayers
from ditto.reference import Constants, run
from ditto.refusals import Refusal
from tests.support.networks import every_layer_network
from tests.support.passes import check_same, network_from

TEXT = """
    input %x: float32[2, 3]
    %a.0: float32[3, 2] = Shuffle(first=(1, 0)) %x
    %a.1: float32[2, 3] = Shuffle(first=(1, 0)) %a.0
    %a.2: float32[2, 3] = Unary(op=EXP) %a.1
    %b.0: float32[3, 2] = Shuffle(first=(1, 0)) %x
    %b.1: float32[2, 3] = Shuffle(first=(1, 0)) %b.0
    %b.2: float32[2, 3] = Unary(op=EXP) %b.1
    %b.3: float32[2, 3] = ElementWise(op=SUM) %a.2 %b.2
    output y = %b.3
"""


@frozen
class Refusing(NetworkPass):
    """Refuses everywhere."""

    name = "refusing"

    def run(self, network):
        return PassResult(
            network, 0, tuple(Refusal(node.place, f"not {node.layer.op}") for node in network.nodes[2::3])
        )


def test_a_network_is_simplified_at_once():
    network = network_from(TEXT)
    after = run_passes(network, SIMPLIFY)
    check_same(network, after)
    assert (
        network_text(after)
        == """input %x: float32[2, 3]
%a.3: float32[2, 3] = Shuffle %x
%a.2: float32[2, 3] = Unary(op=EXP) %a.3
%b.3: float32[2, 3] = ElementWise(op=SUM) %a.2 %a.2
output y = %b.3
"""
    )


def test_every_kind_of_layer_comes_through():
    network, inputs, source = every_layer_network()
    after = run_passes(network, SIMPLIFY)
    wanted = run(network, inputs, Constants(network, source))
    found = run(after, inputs, Constants(after, source))
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())
    assert {type(node.layer) for node in after.nodes} == {type(node.layer) for node in network.nodes}


def test_what_passes_did_is_logged_and_dumped(tmp_path):
    lines = []
    handler = logger.add(lines.append, level="DEBUG", format="{message}")
    logger.enable("ditto")
    try:
        with dumping(tmp_path / "dumps"):
            after = run_passes(network_from(TEXT), (*SIMPLIFY, Refusing(), DeadLayers()))
    finally:
        logger.disable("ditto")
        logger.remove(handler)
    assert [line.strip() for line in lines] == [
        "pass fold shuffles applied 2 times to net",
        "pass common subexpressions applied 3 times to net",
        "pass dead layers applied 1 times to net",
        "pass refusing applied 0 times to net",
        "pass refusing refused 1 times, first at b: not SUM",
        "pass dead layers applied 0 times to net",
    ]
    files = sorted((tmp_path / "dumps").iterdir())
    assert [file.name for file in files] == [
        "00 fold shuffles of net.txt",
        "01 common subexpressions of net.txt",
        "02 dead layers of net.txt",
    ]
    assert files[-1].read_text() == network_text(after)
