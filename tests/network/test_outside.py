"""Large weights become inputs of the network; what it computes stays."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from ditto.network import Network, Spec, check, resolve
from ditto.network.layers import Constant, Convolution, ElementWise, MatrixMultiply
from ditto.network.outside import input_name, with_weights_outside
from ditto.network.weight import Stored, fold
from ditto.reference import Constants, run
from tests.network.samples import Tensors


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


@pytest.fixture
def network():
    """x @ [q k v]^T, and x @ q twice: as stored, and in another shape."""
    made = Network("test")
    x = made.input("x", Spec((3, 128), torch.float32))
    joined = made.add(Constant(fold("concatenate", (Q, K, V), 0)))
    made.output("joined", made.add(MatrixMultiply(transpose_y=True), x, joined))
    q = made.add(Constant(Q))
    made.output("q", made.add(MatrixMultiply(transpose_y=True), x, q))
    turned = made.add(Constant(fold("multiply", fold("permute", Q, (1, 0)), 2.0)))
    product = made.add(MatrixMultiply(), x, turned)
    bias = made.add(Constant(stored("bias", 1, 64)))
    made.output("biased", made.add(ElementWise("SUM"), product, bias))
    made.output("table", made.add(Constant(stored("table", 256, 128))))
    return made


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(0)
    shapes = {"bias": (1, 64), "table": (256, 128), **{weight.name: weight.shape for weight in (Q, K, V)}}
    made = Tensors()
    made.tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return made


def test_large_weights_are_inputs_and_the_outputs_are_what_pytorch_gives(network, tensors):
    before = list(network.nodes)
    made, outside = with_weights_outside(network, 32 * 1024)
    check(made)
    q, k, v = (tensors.tensors[weight.name] for weight in (Q, K, V))
    wanted = {
        "layers.0.attn.{q_proj,k_proj,v_proj}.weight": torch.cat((q, k, v)),
        "layers.0.attn.q_proj.weight": q,
        "layers.0.attn.q_proj.weight#2": 2 * q.T,
    }
    constants = {node.outputs[0]: node.layer for node in network.nodes if isinstance(node.layer, Constant)}
    found = {name: resolve(constants[value].weight, tensors, network.literals) for name, value in outside.items()}
    assert_close(found, wanted)
    assert network.nodes == before
    assert list(network.inputs) == ["x"]

    x = torch.randn(3, 128, generator=torch.Generator().manual_seed(1))
    tensors.asked.clear()
    outputs = run(made, {"x": x, **found}, Constants(made, tensors))
    assert_close(outputs["joined"], x @ torch.cat((q, k, v)).T)
    assert_close(outputs["biased"], x @ (2 * q.T) + tensors.tensors["bias"])
    assert set(tensors.asked) == {"bias", "table"}


def test_small_weights_and_those_that_are_outputs_stay_inside(network):
    made, outside = with_weights_outside(network, 32 * 1024 + 1)
    assert list(outside) == ["layers.0.attn.{q_proj,k_proj,v_proj}.weight"]
    inside = {str(constant.weight) for constant in made.constants()}
    assert {"bias", "table", Q.name} <= inside


def test_what_comes_from_no_checkpoint_stays_inside(network):
    x = network.value("x")
    table = network.add(Constant(network.literals.keep(torch.ones(3, 128))))
    network.output("sum", network.add(ElementWise("SUM"), x, table))
    made, _ = with_weights_outside(network, 1)
    check(made)
    assert [constant.weight.digest for constant in made.constants() if hasattr(constant.weight, "digest")]


def test_a_kernel_stays_inside():
    made = Network("test")
    x = made.input("x", Spec((1, 3, 28, 28), torch.float32))
    kernel = made.add(Constant(stored("patch.weight", 64, 3, 14, 14)))
    made.output("y", made.add(Convolution((14, 14), (0, 0), (1, 1), 1), x, kernel))
    assert with_weights_outside(made, 1)[1] == {}


def test_a_name_that_is_taken_gets_a_number():
    made = Network("test")
    x = made.input("x", Spec((4, 4), torch.float32))
    made.output("y", made.add(MatrixMultiply(), x, made.add(Constant(stored("x", 4, 4)))))
    assert list(with_weights_outside(made, 1)[1]) == ["x#2"]
