"""Operators with a state: a result follows from the tokens up to it alone."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from ditto import ops
from tests.support.layers import FLOATS

_RANDOM = torch.Generator().manual_seed(0)
X = torch.randn(2, 3, 7, generator=_RANDOM)
KERNEL, BIAS = torch.randn(3, 1, 4, generator=_RANDOM), torch.randn(3, generator=_RANDOM)


@pytest.mark.parametrize("bias", [None, BIAS])
def test_a_causal_convolution_weighs_a_token_and_those_before_it(bias):
    wanted = torch.zeros(2, 3, 7)
    for token in range(7):
        for tap in range(4):
            before = token - 3 + tap
            wanted[:, :, token] += KERNEL[:, 0, tap] * X[:, :, before] if before >= 0 else 0.0
    if bias is not None:
        wanted += bias[:, None]
    assert_close(ops.causal_conv(X, KERNEL, bias, 0), wanted)


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_fakes_have_the_shapes_and_dtypes_of_the_real_ones(dtype):
    x, kernel, bias = (part.to(dtype) for part in (X, KERNEL, BIAS))
    torch.library.opcheck(torch.ops.ditto.causal_conv.default, (x, kernel, bias, 0))
    torch.library.opcheck(torch.ops.ditto.causal_conv.default, (x.transpose(1, 2)[:, :3], kernel, None, 0))
