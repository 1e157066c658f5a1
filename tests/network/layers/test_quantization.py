"""Dequantisation, number by number; TensorRT accepts every form."""

from __future__ import annotations

import pytest
import torch

from ditto.network.layers import Dequantize
from tests.support.layers import FLOATS, check_layer
from tests.support.networks import refusal


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("groups", [None, 1, 2, 4])
@pytest.mark.parametrize("bits", [4, 8])
def test_values_are_multiplied_by_the_scale_of_their_group(bits, groups, dtype):
    torch.manual_seed(0)
    values = torch.randint(-(2 ** (bits - 1)), 2 ** (bits - 1), (3, 64), dtype=torch.int8)
    scales = torch.rand((3,) if groups is None else (3, groups)).to(dtype)
    wanted = torch.empty(3, 64, dtype=torch.float64)
    for row in range(3):
        for column in range(64):
            scale = scales[row] if groups is None else scales[row, column * groups // 64]
            wanted[row, column] = int(values[row, column]) * float(scale)
    given = values.view(torch.int4) if bits == 4 else values
    check_layer(Dequantize(), [given, scales], wanted.to(dtype))


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        (["int32[3, 4]", "float32[3]"], "needs int4 or int8 values, got int32[3, 4]"),
        (["int8[3]", "float32[3]"], "needs rank 2, got int8[3]"),
        (["int8[3, 4]", "int8[3]"], "needs a floating dtype, got int8[3]"),
        (["int8[3, 4]", "float32[3, 2, 1]"], "needs rank 1 or 2, got float32[3, 2, 1]"),
        (["int8[3, 4]", "float32[2]"], "scales float32[2] do not fit int8[3, 4]"),
        (["int8[3, 4]", "float32[3, 3]"], "scales float32[3, 3] do not fit int8[3, 4]"),
        (["int8[3, batch]", "float32[3]"], "scales float32[3] do not fit int8[3, batch]"),
        (["int4[3, 3]", "float32[3]"], "int4 values share bytes, so rows need an even number of them, got int4[3, 3]"),
    ],
)
def test_what_does_not_fit_is_refused(specs, message):
    assert refusal(Dequantize(), *specs) == message
