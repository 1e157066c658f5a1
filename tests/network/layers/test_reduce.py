"""Reductions compute what PyTorch computes, and TensorRT agrees on their shapes."""

from __future__ import annotations

import pytest
import torch

from ditto.network import Network, Spec, symbol
from ditto.network.layers import Reduce, Softmax, TopK
from ditto.reference import Constants, run
from tests.support.layers import FLOATS, NoTensors, check_layer, emitted
from tests.support.networks import refusal

AXES = [((1, 2), False), ((1, 2), True), ((0,), False), ((2,), True)]
FUNCTIONS = {
    "SUM": lambda x: x.sum(0),
    "AVG": lambda x: x.sum(0) / x.shape[0],
    "MAX": lambda x: x.sort(0).values[-1],
    "MIN": lambda x: x.sort(0).values[0],
}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("op", FUNCTIONS)
@pytest.mark.parametrize(("axes", "keep"), AXES)
def test_reduce_computes_what_torch_computes(op, axes, keep, dtype):
    x = torch.randn(2, 3, 8).to(dtype)
    rows = x.double().movedim(axes, tuple(range(len(axes)))).flatten(0, len(axes) - 1)
    kept = [1 if axis in axes else size for axis, size in enumerate(x.shape) if keep or axis not in axes]
    check_layer(Reduce(op, axes, keep), [x], FUNCTIONS[op](rows).reshape(kept).to(dtype), dynamic={0: "batch"})


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_softmax_computes_what_torch_computes(axis, dtype):
    x = torch.randn(2, 3, 8).to(dtype)
    powers = x.double().exp()
    check_layer(Softmax(axis), [x], (powers / powers.sum(axis, keepdim=True)).to(dtype), dynamic={0: "batch"})


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("named", [False, True])
def test_the_largest_elements_come_in_descending_order_with_their_places(axis, dtype, named):
    x = torch.randn(3, 4, 5).to(dtype)
    network = Network("test")
    shape = tuple(symbol("rows") if named and index == (axis + 1) % 3 else size for index, size in enumerate(x.shape))
    values, indices = network.add_many(TopK(axis, 2), network.input("x", Spec(shape, dtype)))
    network.output("values", values)
    network.output("indices", indices)
    emitted(network)
    found = run(network, {"x": x}, Constants(network, NoTensors()))
    order = x.float().sort(axis, descending=True)
    assert torch.equal(found["values"].float(), order.values.narrow(axis, 0, 2))
    assert found["indices"].dtype == torch.int32
    assert torch.equal(x.gather(axis, found["indices"].long()), found["values"])


@pytest.mark.parametrize(
    ("layer", "x", "message"),
    [
        (Reduce("SUM", (), False), "float32[2, 3]", "axes () do not fit float32[2, 3]"),
        (Reduce("SUM", (1, 2), False), "float32[2, 3]", "axes (1, 2) do not fit float32[2, 3]"),
        (Reduce("SUM", (-1,), False), "float32[2, 3]", "axes (-1,) do not fit float32[2, 3]"),
        (Reduce("SUM", (0, 0), False), "float32[2, 3]", "axes (0, 0) do not fit float32[2, 3]"),
        (Reduce("MAX", (0,), False), "int64[2]", "needs a floating dtype, got int64[2]"),
        (TopK(2, 1), "float32[2, 3]", "cannot take the largest 1 along axis 2 of float32[2, 3]"),
        (TopK(1, 4), "float32[2, 3]", "cannot take the largest 4 along axis 1 of float32[2, 3]"),
        (TopK(1, 0), "float32[2, 3]", "cannot take the largest 0 along axis 1 of float32[2, 3]"),
        (TopK(0, 2), "float32[n, 3]", "cannot take the largest 2 along axis 0 of float32[n, 3]"),
        (TopK(0, 2), "int32[2, 3]", "needs a floating dtype, got int32[2, 3]"),
        (Softmax(2), "float32[2, 3]", "axis 2 does not fit float32[2, 3]"),
        (Softmax(-1), "float32[2, 3]", "axis -1 does not fit float32[2, 3]"),
        (Softmax(0), "bool[2, 3]", "needs a floating dtype, got bool[2, 3]"),
    ],
)
def test_reductions_refuse_what_does_not_fit(layer, x, message):
    assert refusal(layer, x) == message
