"""Passes are values; a rewriter keeps what it copies and says where and why it did not apply."""

from __future__ import annotations

import pytest
from attrs import evolve, frozen
from attrs.exceptions import FrozenInstanceError

from ditto.errors import Place, ShapeError
from ditto.network import network_text
from ditto.network.layers import Unary
from ditto.passes.network_pass import NodePass, Rewriter
from ditto.refusals import Refusal
from tests.support.passes import check_pass, network_from

NETWORK = """
    input %x: float32[batch, 4]
    input %cache: float32[batch, 4]
    %a.0: float32[batch, 4] = Unary(op=ABS) %x
    %b.0: float32[batch, 4] = Unary(op=EXP) %a.0
    %b.1: float32[batch, 4] = Unary(op=ABS) %b.0
    output y = %b.0
    output present = %b.1 in %cache
"""


@frozen
class Twice(NodePass):
    """Takes absolute values twice."""

    name = "twice"
    kinds = (Unary,)
    but: str = ""

    def replacement(self, net: Rewriter, node):
        if node.layer != Unary("ABS"):
            return None
        if node.place.module == self.but:
            net.refuse(node, "left out")
            return None
        return net.add(Unary("ABS"), net.add(Unary("ABS"), *net.inputs(node)))


def test_nodes_are_replaced_where_they_stand_and_the_others_keep_their_names():
    result = check_pass(
        Twice(),
        NETWORK,
        """
        input %x: float32[batch, 4]
        input %cache: float32[batch, 4]
        %a.1: float32[batch, 4] = Unary(op=ABS) %x
        %a.2: float32[batch, 4] = Unary(op=ABS) %a.1
        %b.0: float32[batch, 4] = Unary(op=EXP) %a.2
        %b.2: float32[batch, 4] = Unary(op=ABS) %b.0
        %b.3: float32[batch, 4] = Unary(op=ABS) %b.2
        output y = %b.0
        output present = %b.3 in %cache
        """,
    )
    assert (result.applied, result.refused) == (2, ())
    assert [node.place.module for node in result.network.nodes] == ["a", "a", "b", "b", "b"]


def test_a_refusal_names_the_place():
    result = Twice(but="b").run(network_from(NETWORK))
    assert (result.applied, result.refused) == (1, (Refusal(Place("b"), "left out"),))


def test_a_pass_is_a_value():
    assert Twice() == Twice() != Twice("a")
    assert evolve(Twice(), but="a") == Twice("a")
    with pytest.raises(FrozenInstanceError):
        Twice().but = "b"


def test_errors_say_for_which_module_a_layer_was_replaced():
    @frozen
    class Wrong(NodePass):
        name = "wrong"
        kinds = (Unary,)

        def replacement(self, net, node):
            return net.permute(net.inputs(node)[0], (0, 0))

    with pytest.raises(ShapeError) as error:
        Wrong().run(network_from(NETWORK))
    assert error.value.where == Place("a")


def test_a_pass_that_finds_nothing_gives_the_same_network():
    network = network_from(NETWORK.replace("ABS", "SIN"))
    assert network_text(Twice().run(network).network) == network_text(network)
