"""A whole network holds together; each way in which one may not is found."""

from __future__ import annotations

import pytest
from attrs import evolve

from ditto.errors import Place, ShapeError
from ditto.network import Network, check
from ditto.network.layers import Softmax, Unary
from ditto.network.weight import leaves
from tests.support.networks import every_layer_network, spec


def small():
    network = Network("net")
    x = network.input("x", spec("float32[batch, 3]"))
    with network.placed(Place("model.act", "model.py:5")):
        y = network.add(Softmax(1), network.add(Unary("EXP"), x))
        network.output("y", network.add(Unary("ABS"), y), shares="x")
    return network


def test_sound_networks_pass():
    check(small())
    check(every_layer_network()[0])


def swap_nodes(network):
    network.nodes[1:] = network.nodes[:0:-1]


def lose_a_node(network):
    del network.nodes[0]


def change_a_layer(network):
    network.inputs["x"] = network._specs["x"] = spec("float32[batch, 4]")


def misfit_a_layer(network):
    network.nodes[1] = evolve(network.nodes[1], layer=Softmax(2))


def lose_the_outputs(network):
    network.outputs.clear()
    network.shared.clear()


def rename_an_output(network):
    network.outputs["y"] = "z"


def share_with_another_shape(network):
    network.shared["y"] = network.input("w", spec("float32[batch, 4]")).name


def share_with_nothing(network):
    network.shared["y"] = "w"


def share_without_an_output(network):
    network.shared["z"] = "x"


ACT = "\nat: model.act (model.py:5)"


@pytest.mark.parametrize(
    ("plant", "message"),
    [
        (swap_nodes, "model.act.2 uses model.act.1 before it is made" + ACT),
        (lose_a_node, "model.act.1 uses model.act.0 before it is made" + ACT),
        (change_a_layer, "model.act.0 is recorded as float32[batch, 3], its layer gives float32[batch, 4]" + ACT),
        (misfit_a_layer, "axis 2 does not fit float32[batch, 3]" + ACT),
        (lose_the_outputs, "the network has no output"),
        (rename_an_output, "output y is z, which nothing makes"),
        (share_with_another_shape, "output y cannot use the memory of w"),
        (share_with_nothing, "output y cannot use the memory of w"),
        (share_without_an_output, "z would share memory, but is not an output"),
    ],
)
def test_a_planted_fault_is_found(plant, message):
    network = small()
    plant(network)
    with pytest.raises(ShapeError) as error:
        check(network)
    assert str(error.value) == message


def test_every_literal_that_a_constant_is_made_of_is_carried():
    network, _, _ = every_layer_network()
    rows = next(constant.weight for constant in network.constants() if str(constant.weight).startswith("rows("))
    _, inside = leaves(rows)
    del network.literals.tensors[inside.digest]
    with pytest.raises(ShapeError) as error:
        check(network)
    assert error.value.cause == f"model.attention.11 needs {inside}, which the network does not carry"
    assert error.value.where == Place("model.attention", "model.py:7")
