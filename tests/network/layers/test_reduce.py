"""Reductions compute what PyTorch computes, and TensorRT agrees on their shapes."""

from __future__ import annotations

import pytest
import torch

from ditto.network.layers import Reduce, Softmax
from tests.support.layers import FLOATS, check_layer
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


@pytest.mark.parametrize(
    ("layer", "x", "message"),
    [
        (Reduce("SUM", (), False), "float32[2, 3]", "axes () do not fit float32[2, 3]"),
        (Reduce("SUM", (1, 2), False), "float32[2, 3]", "axes (1, 2) do not fit float32[2, 3]"),
        (Reduce("SUM", (-1,), False), "float32[2, 3]", "axes (-1,) do not fit float32[2, 3]"),
        (Reduce("SUM", (0, 0), False), "float32[2, 3]", "axes (0, 0) do not fit float32[2, 3]"),
        (Reduce("MAX", (0,), False), "int64[2]", "needs a floating dtype, got int64[2]"),
        (Softmax(2), "float32[2, 3]", "axis 2 does not fit float32[2, 3]"),
        (Softmax(-1), "float32[2, 3]", "axis -1 does not fit float32[2, 3]"),
        (Softmax(0), "bool[2, 3]", "needs a floating dtype, got bool[2, 3]"),
    ],
)
def test_reductions_refuse_what_does_not_fit(layer, x, message):
    assert refusal(layer, x) == message
