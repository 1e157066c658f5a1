"""Numbers that follow from constants alone are computed once; what is drawn, or follows from inputs, is not."""

from __future__ import annotations

import torch

from ditto.rewrite.numbers import compute_numbers
from tests.support.programs import FunctionModule, operators
from tests.support.rewriting import check_applies, check_misses

aten = torch.ops.aten
X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
LEVEL = {"level": torch.tensor(0.95)}


def test_a_quantile_is_a_number():
    def function(self, x):
        return x - torch.distributions.normal.Normal(0, 1).icdf(self.level)

    program = check_applies(compute_numbers, FunctionModule(function, buffers=LEVEL), {"x": X})
    assert operators(program) == [aten.sub.Tensor]


def test_an_element_of_several_results_is_a_number():
    def function(self, x):
        return x * torch.broadcast_tensors(self.level, torch.ones(1))[0]

    program = check_applies(compute_numbers, FunctionModule(function, buffers=LEVEL), {"x": X}, 1)
    assert operators(program) == [aten.mul.Tensor]


def test_what_is_drawn_or_large_or_follows_from_inputs_stays():
    table = {"level": torch.arange(4.0)}
    for function, buffers in (
        (lambda self, x: x + torch.bernoulli(self.level), LEVEL),
        (lambda self, x: x + self.level.exp(), table),
        (lambda self, x: (x[:1, :1] * self.level).exp(), LEVEL),
    ):
        check_misses(compute_numbers, FunctionModule(function, buffers=buffers), {"x": X})
