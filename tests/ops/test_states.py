"""Operators with a state: a result follows from the tokens up to it alone."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from ditto import ops
from tests.support.layers import FLOATS
from tests.support.recurrences import HEADS, recurrence

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


@pytest.mark.parametrize("per_row", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_without_a_rate_a_query_weighs_all_values_so_far_by_keys_and_decays(per_row, shared):
    query, key, value, decay, _ = recurrence(per_row=per_row, shared=shared)
    wanted = torch.zeros_like(value)
    for token in range(5):
        for other in range(token + 1):
            decayed = decay[:, other + 1 : token + 1].sum(1).exp()
            wanted[:, token] += (query[:, token] * decayed * key[:, other]).sum(-1, keepdim=True) * value[:, other]
    assert_close(ops.linear_attention(query, key, value, decay, None, 0), wanted)


def test_a_rate_replaces_what_the_state_holds_for_a_key():
    _, key, value, decay, _ = recurrence()
    key = key / key.norm(dim=-1, keepdim=True)
    found = ops.linear_attention(key, key, value, decay, torch.ones(2, 5, HEADS), 0)
    assert_close(found, value)  # a rate of 1 and keys of length 1: the key of a token reads its value


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_fakes_have_the_shapes_and_dtypes_of_the_real_ones(dtype):
    x, kernel, bias = (part.to(dtype) for part in (X, KERNEL, BIAS))
    torch.library.opcheck(torch.ops.ditto.causal_conv.default, (x, kernel, bias, 0))
    torch.library.opcheck(torch.ops.ditto.causal_conv.default, (x.transpose(1, 2)[:, :3], kernel, None, 0))
    query, key, value, decay, rate = recurrence()
    torch.library.opcheck(torch.ops.ditto.linear_attention.default, (query, key, value, decay, rate, 0))
    torch.library.opcheck(torch.ops.ditto.linear_attention.default, (query, key, value, decay, None, 0))
