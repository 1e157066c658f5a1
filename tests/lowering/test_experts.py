"""Mixtures of experts compute what each token's experts compute, in both forms."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import linear, one_hot
from torch.testing import assert_close

from ditto import ops
from ditto.lowering import table
from ditto.lowering.experts import experts_of_few
from ditto.network.layers import Gather
from tests.support.layers import FLOATS, emitted
from tests.support.lowering import (
    BATCH,
    ModuleTensors,
    Row,
    check_every_lowering_has_rows,
    check_meaning,
    check_rows,
    lowered,
    rows,
)
from tests.support.programs import FunctionModule

own = torch.ops.ditto
EXPERTS, WIDTH, INNER = 5, 4, 6
_RANDOM = torch.Generator().manual_seed(0)
X = torch.randn(BATCH, WIDTH, generator=_RANDOM)
UP, UP_BIAS = torch.randn(EXPERTS, INNER, WIDTH, generator=_RANDOM), torch.randn(EXPERTS, INNER, generator=_RANDOM)
DOWN, DOWN_BIAS = torch.randn(EXPERTS, WIDTH, INNER, generator=_RANDOM), torch.randn(EXPERTS, WIDTH, generator=_RANDOM)
CHOSEN = torch.tensor([[4, 0], [1, 2], [2, 4]])
SHARES = torch.rand(BATCH, 2, generator=_RANDOM)


def _one_by_one(x, chosen, shares, up, up_bias, down, down_bias):
    """Experts as a loop over tokens and their choices."""
    result = torch.zeros(x.shape[0], down.shape[1])
    for token in range(x.shape[0]):
        for expert, share in zip(chosen[token].tolist(), shares[token], strict=True):
            inner = linear(x[token], up[expert], None if up_bias is None else up_bias[expert]).relu()
            result[token] += share * linear(inner, down[expert], None if down_bias is None else down_bias[expert])
    return result


def _module(transposed, with_bias):
    flip = (lambda x: x.transpose(1, 2).contiguous()) if transposed else (lambda x: x)
    weights = {"up": flip(UP), "down": flip(DOWN)}
    biases = {"up_bias": UP_BIAS, "down_bias": DOWN_BIAS} if with_bias else {}

    def forward(self, x, chosen, shares):
        up_bias, down_bias = (getattr(self, name, None) for name in ("up_bias", "down_bias"))
        inner = ops.expert_linear(x, self.up, up_bias, chosen, transposed).relu()
        return ops.expert_sum(inner, self.down, down_bias, chosen, shares, transposed)

    return FunctionModule(forward, {**weights, **biases})


INPUTS = {"x": X, "chosen": CHOSEN, "shares": SHARES}


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("form", [{}, experts_of_few(0)], ids=["all experts", "chosen experts"])
@pytest.mark.parametrize("names", [None, {"x": "batch", "chosen": "batch", "shares": "batch"}])
def test_each_token_gets_the_sum_of_its_experts(transposed, with_bias, form, names):
    module = _module(transposed, with_bias)
    network = lowered(module, INPUTS, names, lowerings={**table(), **form})
    emitted(network, ModuleTensors(module))
    check_meaning(network, module, INPUTS, {"batch": BATCH})
    biases = (UP_BIAS, DOWN_BIAS) if with_bias else (None, None)
    assert_close(module(X, CHOSEN, SHARES), _one_by_one(X, CHOSEN, SHARES, UP, biases[0], DOWN, biases[1]))


def test_single_experts_are_read_where_that_is_a_tenth_of_all():
    def reads(lowerings, count):
        weights = {"up": torch.randn(count, INNER, WIDTH), "down": torch.randn(count, WIDTH, INNER)}

        def forward(self, x, chosen, shares):
            inner = ops.expert_linear(x, self.up, None, chosen, False)
            return ops.expert_sum(inner, self.down, None, chosen, shares, False)

        network = lowered(FunctionModule(forward, weights), INPUTS, None, lowerings)
        return sum(isinstance(node.layer, Gather) and node.layer.axis == 0 for node in network.nodes)

    few = {**table(), **experts_of_few(3)}  # 3 tokens of 2 choices each
    assert [reads(table(), 60), reads(few, 60), reads(few, 59)] == [0, 2, 0]


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_operators_are_what_their_experts_compute(dtype):
    inner = ops.expert_linear(X.to(dtype), UP.to(dtype), UP_BIAS.to(dtype), CHOSEN, False)
    each = torch.stack([linear(X.to(dtype), UP[e].to(dtype), UP_BIAS[e].to(dtype)) for e in range(EXPERTS)])
    wanted = (each.permute(1, 2, 0).float() @ one_hot(CHOSEN, EXPERTS).transpose(1, 2).float()).transpose(1, 2)
    assert_close(inner.float(), wanted, rtol=2e-2, atol=2e-2)


INNER_X = torch.randn(BATCH, 2, INNER, generator=_RANDOM)
ROWS = {
    own.expert_linear.default: [
        *(Row(X.to(dtype), UP.to(dtype), UP_BIAS.to(dtype), CHOSEN, False) for dtype in FLOATS),
        Row(X, UP.transpose(1, 2).contiguous(), None, CHOSEN.int(), True),
    ],
    own.expert_sum.default: [
        Row(INNER_X, DOWN, DOWN_BIAS, CHOSEN, SHARES, False),
        Row(INNER_X, DOWN.transpose(1, 2).contiguous(), None, CHOSEN.int(), SHARES, True),
        Row(INNER_X.half(), DOWN.half(), None, CHOSEN, SHARES.half(), False),
    ],
}


def test_every_lowering_of_the_module_has_rows():
    check_every_lowering_has_rows(ROWS, "experts")


@pytest.mark.parametrize(("operator", "calls"), rows(ROWS))
def test_experts_compute_what_their_operators_compute(operator, calls):
    check_rows(operator, calls)
