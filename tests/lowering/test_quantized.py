"""Products with quantised weights stay quantised where an engine can hold them, and equal PyTorch's."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.nn import functional
from torch.testing import assert_close

from ditto.arguments import DynamicDimension
from ditto.bindings import load_native
from ditto.configs import TensorRTConfig
from ditto.engine import Phase, Profile
from ditto.lowering import Lowering
from ditto.lowering.linear import linear
from ditto.network import Literals, Network, resolve
from ditto.network.quantized import QuantizedWeight
from ditto.network.spec import Spec
from ditto.network.weight import Stored, fold
from ditto.reference import Constants, relative_error, run
from ditto.targets.compile import compile_networks
from tests.support.layers import FLOATS, emitted
from tests.support.networks import InMemoryTensors, spec

COLUMNS = 64
SOURCE = InMemoryTensors()


def stored(name, tensor):
    SOURCE.tensors[name] = tensor
    return Stored(name, tuple(tensor.shape), tensor.dtype)


def quantised(
    name, rows=6, columns=COLUMNS, block=(1, 16), bits=4, zeros=True, groups=False, kind=torch.int8, offsets=False
):
    """A quantised weight of random numbers."""
    torch.manual_seed(len(SOURCE.tensors))
    shape = -(-rows // block[0]), -(-columns // block[1])
    half = 2 ** (bits - 1)
    return QuantizedWeight(
        stored(f"{name}.values", torch.randint(-half, half, (rows, columns), dtype=torch.int8).to(kind)),
        stored(f"{name}.scales", (torch.rand(shape) / 16 / half).to(torch.float16)),
        stored(f"{name}.zeros", torch.randint(-4, 4, shape, dtype=torch.int8)) if zeros else None,
        bits,
        block,
        stored(f"{name}.groups", torch.randperm(columns) // block[1]) if groups else None,
        (rows, columns),
        torch.float32,
        stored(f"{name}.offsets", torch.randn(shape, dtype=torch.float16)) if offsets else None,
    )


def network_of(weight, dtype=torch.float32, shape="batch, 3"):
    """A linear layer with that weight, without bias."""
    network = Network("linear")
    x = network.input("x", Spec(spec(f"float32[{shape}, {weight.shape[1]}]").shape, dtype))
    net = Lowering(network, None, None)  # type: ignore[arg-type] - neither is asked for
    network.output("y", linear(net, x, weight))
    return network


def check(weight, dtype=torch.float32, shape="batch, 3"):
    """Compare a linear layer with PyTorch's on the dequantised weight; return its layers, counted."""
    network = network_of(weight, dtype, shape)
    x = torch.randn(*(2 if size == "batch" else int(size) for size in shape.split(", ")), weight.shape[1])
    wanted = functional.linear(x.to(dtype).double(), resolve(weight, SOURCE, Literals()).double())
    (found,) = run(network, {"x": x.to(dtype)}, Constants(network, SOURCE)).values()
    bound = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}[dtype]
    assert found.dtype == dtype and relative_error(found, wanted) < bound
    emitted(network, SOURCE)
    return Counter(type(node.layer).__name__ for node in network.nodes)


@pytest.mark.parametrize("zeros", [False, True], ids=["symmetric", "asymmetric"])
def test_offsets_are_a_product_of_their_own(zeros):
    layers = check(quantised(f"offsets {zeros}", zeros=zeros, offsets=True))
    assert (layers["Dequantize"], layers["MatrixMultiply"]) == (1, 2)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("zeros", [False, True], ids=["symmetric", "asymmetric"])
@pytest.mark.parametrize("block", [(1, 16), (1, COLUMNS), (6, COLUMNS)], ids=["groups", "rows", "whole"])
@pytest.mark.parametrize("bits", [4, 8])
def test_integers_stay_in_the_engine(bits, block, zeros, dtype):
    layers = check(quantised(f"form {bits} {block} {zeros}", block=block, bits=bits, zeros=zeros), dtype)
    assert (layers["Dequantize"], layers["MatrixMultiply"]) == (1, 2 if zeros else 1)


@pytest.mark.parametrize("shape", ["5", "batch", "batch, 2, 3"])
def test_inputs_of_any_rank(shape):
    assert check(quantised(f"rank {shape}"), shape=shape)["Dequantize"] == 1


@pytest.mark.parametrize(
    "given",
    [
        {"kind": torch.float8_e4m3fn, "zeros": False, "bits": 8},
        {"groups": True},
        {"block": (2, 16)},
        {"block": (1, 24)},  # the last group is smaller
        {"columns": 5, "block": (1, 5)},  # an odd number of int4 values
    ],
    ids=str,
)
def test_other_forms_are_dequantised_when_the_engine_is_built(given):
    layers = check(quantised(f"float {given}", **given))
    assert (layers["Dequantize"], layers["MatrixMultiply"]) == (0, 1)


def test_joined_weights_are_one_product():
    parts = tuple(quantised(f"joined {index}", rows=rows) for index, rows in enumerate((6, 2, 2)))
    layers = check(fold("concatenate", parts, 0))
    assert (layers["Dequantize"], layers["MatrixMultiply"], layers["Concatenation"]) == (1, 2, 0)


def test_weights_of_several_forms_are_products_side_by_side():
    SOURCE.tensors["plain"] = torch.randn(3, COLUMNS)
    parts = (
        quantised("side 4", zeros=False),
        Stored("plain", (3, COLUMNS), torch.float32),
        quantised("side 8", rows=4, bits=8, zeros=False),
        quantised("side fp8", rows=2, bits=8, zeros=False, kind=torch.float8_e4m3fn),
    )
    layers = check(fold("concatenate", parts, 0))
    assert (layers["Dequantize"], layers["MatrixMultiply"], layers["Concatenation"]) == (2, 4, 1)


@pytest.mark.parametrize(("bits", "most"), [(4, 1e6), (8, 1.5e6)])
def test_tensorrt_keeps_small_integers_in_the_engine(tmp_path, bits, most):
    weight = quantised(f"kept {bits}", rows=1024, columns=1024, block=(1, 128), bits=bits, zeros=False)
    network, trt = network_of(weight, torch.float16), load_native("tensorrt_rtx")
    profile = Profile(Phase.ENCODE, {"batch": DynamicDimension("batch", 1, 1, 8)})
    paths = [tmp_path / "engine"]
    size = compile_networks([network], [profile], SOURCE, trt, TensorRTConfig(), ("8.9",), paths)
    assert 1024 * 1024 * bits / 8 < size < most  # 2.1 MB in float16


def test_an_engine_is_given_the_integers_as_they_are():
    weight = quantised("given", zeros=False)
    network = network_of(weight)
    values, scales = (constant.weight for constant in network.constants())
    assert (str(values), str(scales)) == ("int4(given.values)", "cast(given.scales, float32)")
    assert_close(resolve(values, SOURCE, Literals()).view(torch.int8), SOURCE.tensors["given.values"])
