"""Normalization against its formula."""

from __future__ import annotations

import pytest
import torch

from ditto.network.layers import Normalization
from tests.support.layers import FLOATS, check_layer
from tests.support.networks import refusal


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("axes", [(2,), (1, 2)])
@pytest.mark.parametrize("epsilon", [1e-5, 0.5])
def test_the_last_axes_get_mean_0_and_variance_1_then_scale_and_bias(axes, epsilon, dtype):
    x = (torch.randn(2, 3, 8) * 2 + 3).to(dtype)
    width = x.shape[axes[0] :]
    scale, bias = torch.rand(width).to(dtype), torch.randn(width).to(dtype)
    wide = x.double().flatten(axes[0])
    centred = wide - wide.mean(-1, keepdim=True)
    normed = (centred / (centred.square().mean(-1, keepdim=True) + epsilon).sqrt()).reshape(x.shape)
    wanted = (normed * scale.double() + bias.double()).to(dtype)
    inputs = [x, *(table.reshape((1,) * axes[0] + width) for table in (scale, bias))]
    check_layer(Normalization(axes, epsilon), inputs, wanted, dynamic={0: "batch"})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_are_kept_in_float32(dtype):
    x = torch.linspace(200, 400, 2048).reshape(1, -1).to(dtype)  # its squares add up to more than float16 holds
    centred = x.float() - x.float().mean()
    wanted = (centred / centred.square().mean().sqrt()).to(dtype)
    check_layer(Normalization((1,), 1e-5), [x, torch.ones_like(x), torch.zeros_like(x)], wanted)


@pytest.mark.parametrize(
    ("axes", "specs", "message"),
    [
        (
            (1,),
            ["float32[2, 8]", "float16[1, 8]", "float32[1, 8]"],
            "needs equal dtypes, got float32[2, 8] and float16[1, 8] and float32[1, 8]",
        ),
        ((1,), ["int32[2, 8]"] * 3, "needs a floating dtype, got int32[2, 8]"),
        ((0,), ["float32[2, 8]", "float32[2, 1]", "float32[2, 1]"], "(0,) are not the last axes of float32[2, 8]"),
        (
            (1,),
            ["float32[2, 8]", "float32[8]", "float32[8]"],
            "scale float32[8] and bias float32[8] do not fit float32[2, 8] normalized over axes (1,)",
        ),
        (
            (1,),
            ["float32[2, 8]", "float32[1, 8]", "float32[1, 1]"],
            "scale float32[1, 8] and bias float32[1, 1] do not fit float32[2, 8] normalized over axes (1,)",
        ),
    ],
)
def test_normalization_refuses_what_does_not_fit(axes, specs, message):
    assert refusal(Normalization(axes, 1e-5), *specs) == message
