"""Operators of experts are the linear layers of the experts that each token chooses."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import linear
from torch.testing import assert_close

from ditto import ops
from tests.support.layers import FLOATS

TOKENS, EXPERTS, WIDTH, INNER = 4, 5, 3, 6
_RANDOM = torch.Generator().manual_seed(0)
X = torch.randn(TOKENS, WIDTH, generator=_RANDOM)
WEIGHT, BIAS = torch.randn(EXPERTS, INNER, WIDTH, generator=_RANDOM), torch.randn(EXPERTS, INNER, generator=_RANDOM)
CHOSEN = torch.tensor([[4, 0], [1, 2], [2, 4], [3, 3]])
SHARES = torch.rand(TOKENS, 2, generator=_RANDOM)


def _each(x, bias):
    """Token by token, choice by choice; x is [T, W] or [T, k, W]."""
    rows = [
        linear(x[token] if x.dim() == 2 else x[token, choice], WEIGHT[expert], None if bias is None else bias[expert])
        for token in range(TOKENS)
        for choice, expert in enumerate(CHOSEN[token].tolist())
    ]
    return torch.stack(rows).reshape(TOKENS, 2, INNER)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("bias", [None, BIAS])
@pytest.mark.parametrize("integer", [torch.int32, torch.int64])
def test_a_token_goes_through_the_experts_that_it_chooses(transposed, bias, integer):
    weight = WEIGHT.transpose(1, 2).contiguous() if transposed else WEIGHT
    found = ops.expert_linear(X, weight, bias, CHOSEN.to(integer), transposed)
    assert_close(found, _each(X, bias))


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("bias", [None, BIAS])
def test_results_are_added_up_by_their_shares(transposed, bias):
    weight = WEIGHT.transpose(1, 2).contiguous() if transposed else WEIGHT
    x = torch.randn(TOKENS, 2, WIDTH, generator=torch.Generator().manual_seed(1))
    found = ops.expert_sum(x, weight, bias, CHOSEN, SHARES, transposed)
    assert_close(found, (_each(x, bias) * SHARES[..., None]).sum(1))


def test_shares_may_be_wider_than_tokens():
    x = torch.randn(TOKENS, 2, WIDTH, generator=torch.Generator().manual_seed(1)).half()
    assert ops.expert_sum(x, WEIGHT.half(), None, CHOSEN, SHARES, False).dtype == torch.float16


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_fakes_have_the_shapes_and_dtypes_of_the_real_ones(dtype):
    x, weight, bias = (part.to(dtype) for part in (X, WEIGHT, BIAS))
    own = torch.ops.ditto
    torch.library.opcheck(own.expert_linear.default, (x, weight, bias, CHOSEN, False))
    torch.library.opcheck(own.expert_linear.default, (x, weight.transpose(1, 2).contiguous(), None, CHOSEN, True))
    rows = x[:, None].expand(-1, 2, -1).contiguous()
    torch.library.opcheck(own.expert_sum.default, (rows, weight, bias, CHOSEN, SHARES, False))
