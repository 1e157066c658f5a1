"""Convolution against windows times kernels."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import pad

from ditto.network.layers import Convolution
from tests.support.layers import FLOATS, check_layer
from tests.support.networks import refusal


def by_windows(x, kernel, bias, stride, padding, dilation, groups):
    """Every output position on its own, in float64."""
    x = pad(x.double(), (padding[1], padding[1], padding[0], padding[0])).unflatten(1, (groups, -1))
    kernel = kernel.double().unflatten(0, (groups, -1))
    reach = [dilation[axis] * (kernel.shape[3 + axis] - 1) + 1 for axis in range(2)]
    columns = []
    for top in range(0, x.shape[3] - reach[0] + 1, stride[0]):
        for left in range(0, x.shape[4] - reach[1] + 1, stride[1]):
            window = x[..., top : top + reach[0] : dilation[0], left : left + reach[1] : dilation[1]]
            columns.append(torch.einsum("bgchw,gochw->bgo", window, kernel).flatten(1) + bias.double())
    width = (x.shape[4] - reach[1]) // stride[1] + 1
    return torch.stack(columns, -1).unflatten(-1, (-1, width))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups"),
    [
        ((2, 2), (0, 0), (1, 1), 1),
        ((1, 2), (1, 0), (1, 1), 1),
        ((1, 1), (2, 1), (2, 3), 1),
        ((3, 1), (0, 1), (1, 1), 2),
    ],
)
def test_convolution_is_windows_times_kernels(stride, padding, dilation, groups, biased, dtype):
    x = torch.randn(2, 4, 7, 9).to(dtype)
    kernel, bias = (torch.randn(6, 4 // groups, 3, 2) / 5).to(dtype), torch.randn(6).to(dtype)
    wanted = by_windows(x, kernel, bias if biased else torch.zeros(6), stride, padding, dilation, groups).to(dtype)
    inputs = [x, kernel, bias] if biased else [x, kernel]
    check_layer(Convolution(stride, padding, dilation, groups), inputs, wanted, dynamic={0: "batch"})


@pytest.mark.parametrize(
    ("specs", "groups", "message"),
    [
        (
            ["float32[1, 4, 8, 8]", "float16[6, 4, 2, 2]"],
            1,
            "needs equal dtypes, got float32[1, 4, 8, 8] and float16[6, 4, 2, 2]",
        ),
        (["float32[4, 8, 8]", "float32[6, 4, 2, 2]"], 1, "needs rank 4, got float32[4, 8, 8]"),
        (
            ["float32[1, 4, 8, 8]", "float32[6, 3, 2, 2]"],
            1,
            "float32[1, 4, 8, 8] does not have the channels of kernel float32[6, 3, 2, 2] in 1 groups",
        ),
        (["float32[1, 4, 8, 8]", "float32[5, 2, 2, 2]"], 2, "kernel float32[5, 2, 2, 2] has no 2 groups of equal size"),
        (
            ["float32[1, 4, 8, 8]", "float32[6, 4, 2, 2]", "float32[5]"],
            1,
            "bias float32[5] does not fit kernel float32[6, 4, 2, 2]",
        ),
        (
            ["float32[1, 4, height, 8]", "float32[6, 4, 2, 2]"],
            1,
            "needs static height and width, got float32[1, 4, height, 8] and kernel float32[6, 4, 2, 2]",
        ),
        (
            ["float32[1, 4, 8, 8]", "float32[6, 4, 9, 2]"],
            1,
            "kernel float32[6, 4, 9, 2] is larger than float32[1, 4, 8, 8]",
        ),
    ],
)
def test_convolution_refuses_what_does_not_fit(specs, groups, message):
    assert refusal(Convolution((1, 1), (0, 0), (1, 1), groups), *specs) == message
