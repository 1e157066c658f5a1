"""A builder adds what is needed for a shape, a box or a dtype, and nothing where nothing is."""

from __future__ import annotations

import pytest
import torch

from ditto.errors import ShapeError
from ditto.network import Network, Spec, symbol
from ditto.network.builder import NetworkBuilder
from ditto.network.dims import add, multiply
from ditto.reference import Constants, run
from tests.support.layers import NoTensors, emitted

BATCH, SEQUENCE = symbol("batch"), symbol("sequence")
X = torch.arange(24.0).reshape(2, 3, 4)


@pytest.fixture
def net():
    """Over x [batch, sequence, 4]."""
    builder = NetworkBuilder(Network("net"))
    builder.network.input("x", Spec((BATCH, SEQUENCE, 4), torch.float32))
    return builder


def result(net, value):
    """What a value is for X; TensorRT infers the same shape."""
    net.network.output("y", value)
    emitted(net.network)
    return run(net.network, {"x": X}, Constants(net.network, NoTensors()))["y"]


def test_nothing_is_added_for_what_is_so_already(net):
    x = net.network.value("x")
    assert net.cast(x, torch.float32) == net.reshape(x, x.spec.shape) == net.permute(x, (0, 1, 2)) == x
    assert net.network.nodes == []


def test_permutations_and_casts(net):
    found = result(net, net.cast(net.permute(net.network.value("x"), (2, 0, 1)), torch.float16))
    assert torch.equal(found, X.permute(2, 0, 1).half())


@pytest.mark.parametrize(
    ("shape", "layers"),
    [
        ((BATCH, SEQUENCE, 2, 2), 1),  # a single size is inferred
        ((multiply(BATCH, SEQUENCE), 4), 1),
        ((1, BATCH, SEQUENCE, 4), None),  # sizes come as an input
    ],
)
def test_reshapes_compute_the_sizes_that_cannot_be_inferred(net, shape, layers):
    value = net.reshape(net.network.value("x"), shape)
    assert value.spec.shape == shape
    assert layers in (None, len(net.network.nodes))
    assert torch.equal(result(net, value).flatten(), X.flatten())


def test_slices_and_boxes(net):
    x = net.network.value("x")
    assert torch.equal(result(net, net.slice(x, 2, 1, 2)), X[..., 1:3])
    assert torch.equal(result(net, net.slice(x, 2, 0, 2, 2)), X[..., ::2])
    assert torch.equal(result(net, net.box(x, (0, 0, 3), (BATCH, SEQUENCE, 4), (1, 1, -1))), X.flip(2))


def test_sizes_are_computed_from_inputs(net):
    found = result(net, net.sizes((5, add(multiply(BATCH, SEQUENCE), 1), multiply(3, SEQUENCE), BATCH, 7, 8)))
    assert found.tolist() == [5, 7, 9, 2, 7, 8]


def test_static_sizes_are_a_literal(net):
    assert result(net, net.sizes((5, 6))).tolist() == [5, 6]
    assert len(net.network.nodes) == 1


def test_a_dimension_that_no_input_has_is_named(net):
    with pytest.raises(ShapeError, match="no input has the dimension `kv_length`"):
        net.sizes((symbol("kv_length"),))
