"""Convolutions over a sequence are recognised where each token sees itself and those before it, and only there."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import conv1d

from ditto.rewrite.causal_conv import recognise_causal_convs
from tests.support.programs import FunctionModule, operators
from tests.support.rewriting import check_applies, check_misses

CHANNELS, TAPS = 4, 3
_RANDOM = torch.Generator().manual_seed(0)
X = {"x": torch.randn(2, CHANNELS, 5, generator=_RANDOM)}
NAMES = {"x": "batch . sequence"}
KERNEL = torch.randn(CHANNELS, 1, TAPS, generator=_RANDOM)
BIAS = torch.randn(CHANNELS, generator=_RANDOM)


def _convolution(results=lambda y, x: y[..., : x.shape[2]], groups=CHANNELS, **settings):
    def forward(self, x):
        kernel = self.kernel if groups > 1 else self.kernel.expand(-1, CHANNELS, -1)
        return results(conv1d(x, kernel, self.bias, **{"padding": TAPS - 1, "groups": groups, **settings}), x)

    return FunctionModule(forward, {"kernel": KERNEL, "bias": BIAS})


def test_a_convolution_of_a_token_and_those_before_it_is_recognised():
    program = check_applies(recognise_causal_convs, _convolution(), X, names=NAMES)
    assert torch.ops.ditto.causal_conv.default in operators(program)


def test_convolutions_are_numbered():
    first, second = _convolution(), _convolution()

    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = first, second

        def forward(self, x):
            return self.second(self.first(x))

    program = check_applies(recognise_causal_convs, Both(), X, times=2, names=NAMES)
    assert [node.args[3] for node in program.graph.nodes if "causal_conv" in str(node.target)] == [0, 1]


OTHERS = {
    "results of later tokens": _convolution(lambda y, x: y[..., 1 : x.shape[2] + 1]),
    "all results": _convolution(lambda y, x: y),
    "results also for padding": _convolution(lambda y, x: y[..., : x.shape[2]] * y[..., 2:]),
    "less padding": _convolution(lambda y, x: y[..., : x.shape[2]], padding=1),
    "dilated": _convolution(lambda y, x: y[..., : x.shape[2]], dilation=2),
    "channels together": _convolution(groups=1),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_convolutions_are_left_alone(name):
    check_misses(recognise_causal_convs, OTHERS[name], X, NAMES)
