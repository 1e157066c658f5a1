"""Which weights are inputs of an engine, and their names."""

from __future__ import annotations

import pytest
import torch

from ditto.network import Network, Spec
from ditto.network.layers import Constant, Convolution, ElementWise, MatrixMultiply
from ditto.network.weight import Stored, fold
from ditto.passes.external_weights import ExternalWeights, free_name, input_name


def stored(name, *shape, dtype=torch.float32):
    return Stored(name, shape, dtype)


Q, K, V = (stored(f"layers.0.attn.{name}_proj.weight", 64, 128) for name in "qkv")


@pytest.mark.parametrize(
    ("weight", "name"),
    [
        (Q, "layers.0.attn.q_proj.weight"),
        (fold("cast", Q, torch.float16), "layers.0.attn.q_proj.weight"),
        (fold("concatenate", (Q, K, V), 0), "layers.0.attn.{q_proj,k_proj,v_proj}.weight"),
        (fold("concatenate", (Q, Q), 0), "layers.0.attn.q_proj.weight"),
        (fold("concatenate", (stored("a", 2, 2), stored("b.c", 2, 2)), 0), "{a,b.c}"),
        (fold("concatenate", (stored("a.w", 2, 2), stored("a.b.w", 2, 2)), 0), "a.{,b}.w"),
    ],
)
def test_an_input_is_named_after_what_it_is_made_of(weight, name):
    assert input_name(weight) == name


Q_BYTES = 64 * 128 * 4


@pytest.fixture
def network():
    """Products with q, k and v at once, and with q alone; a bias, a table that is an output, a literal, a kernel."""
    made = Network("test")
    x = made.input("x", Spec((3, 128), torch.float32))
    made.add(MatrixMultiply(transpose_y=True), x, made.add(Constant(fold("concatenate", (Q, K, V), 0))))
    product = made.add(MatrixMultiply(transpose_y=True), x, made.add(Constant(Q)))
    product = made.add(ElementWise("SUM"), product, made.add(Constant(stored("bias", 1, 64))))
    made.add(MatrixMultiply(), product, made.add(Constant(fold("permute", Q, (0, 1)))))
    made.output("table", made.add(Constant(stored("table", 256, 128))))
    made.add(ElementWise("SUM"), x, made.add(Constant(made.literals.keep(torch.ones(3, 128)))))
    pixels = made.input("pixels", Spec((1, 3, 28, 28), torch.float32))
    kernel = made.add(Constant(stored("patch.weight", 64, 3, 14, 14)))
    made.add(Convolution((14, 14), (0, 0), (1, 1), 1), pixels, kernel)
    return made


def external_of(network, least_bytes):
    """The set, and the names of a network's constants by what they are made of."""
    nodes = [node for node in network.nodes if isinstance(node.layer, Constant)]
    return ExternalWeights(network, least_bytes), {str(node.layer.weight): node.outputs[0] for node in nodes}


def test_what_comes_from_the_checkpoint_may_be_external_but_outputs_and_kernels(network):
    external, values = external_of(network, Q_BYTES)
    stay = {"table", "patch.weight"}
    assert {
        text for text, value in values.items() if not external.may_be_external(value) and "literal" not in text
    } == stay
    assert [text for text, value in values.items() if not external.may_be_external(value) and "literal" in text]


@pytest.mark.parametrize(("least_bytes", "count"), [(1, 4), (257, 3), (Q_BYTES, 3), (Q_BYTES + 1, 1), (1 << 20, 0)])
def test_of_those_the_large_ones_should_be(network, least_bytes, count):
    external, values = external_of(network, least_bytes)
    large = [value for value in values.values() if external.should_be_external(value)]
    assert len(large) == count
    assert all(external.may_be_external(value) for value in large)


def test_a_constant_has_one_name_of_its_own(network):
    external, values = external_of(network, 1)
    assert external.names == {}
    plain, turned = values[Q.name], values[f"permute({Q.name}, [0, 1])"]
    assert [external.name(value) for value in (plain, turned, plain)] == [Q.name, f"{Q.name}#2", Q.name]
    assert external.names == {plain: Q.name, turned: f"{Q.name}#2"}
    assert external.weight(plain) == Q


@pytest.mark.parametrize("taken", ["an input", "an output", "a value"])
def test_a_name_that_the_network_has_already_gets_a_number(taken):
    made = Network("x" if taken == "a value" else "test")
    x = made.input("x" if taken == "an input" else "y", Spec((4, 4), torch.float32))
    name = "x.0" if taken == "a value" else "x"
    weight = made.add(Constant(stored(name, 4, 4)))
    made.output("x" if taken == "an output" else "z", made.add(MatrixMultiply(), x, weight))
    assert ExternalWeights(made, 1).name(weight.name) == f"{name}#2"


def test_a_free_name_is_as_it_is_or_has_the_first_number_that_is_free():
    assert [free_name("a", taken) for taken in ((), ("a",), ("a", "a#2"), ("a#2",))] == ["a", "a#2", "a#3", "a"]
