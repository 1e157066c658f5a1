"""Linear layers of one input become one, and give the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import linear

from ditto.rewrite.projections import fuse_projections
from tests.support.layers import FLOATS
from tests.support.programs import FunctionModule, operators
from tests.support.rewriting import check_applies, check_misses

aten = torch.ops.aten

X = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))


class _Attention(nn.Module):
    def __init__(self, *biases, widths=(6, 2, 3)):
        super().__init__()
        torch.manual_seed(0)
        self.parts = nn.ModuleList([nn.Linear(4, width, bias) for width, bias in zip(widths, biases)])
        self.requires_grad_(False)

    def forward(self, x):
        return torch.cat([part(x) * (i + 1) for i, part in enumerate(self.parts)], -1)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("count", [2, 3])
def test_layers_of_one_input_are_joined(count, bias, dtype):
    module = _Attention(*[bias] * count).to(dtype)
    program = check_applies(fuse_projections, module, {"x": X.to(dtype)}, times=count, names={"x": "batch sequence"})
    (whole,) = (node for node in program.graph.nodes if node.target == aten.linear.default)
    assert str(program.spec(whole)).endswith(f"[batch, sequence, {sum((6, 2, 3)[:count])}]")
    assert operators(program).count(aten.slice.Tensor) == count
    assert sorted(program.parameters.values()) == sorted(dict(module.named_parameters()))


def test_layers_with_and_without_bias_are_joined_apart():
    program = check_applies(
        fuse_projections, _Attention(True, False, True, False, widths=(2, 3, 4, 5)), {"x": X}, times=4
    )
    assert operators(program).count(aten.linear.default) == 2


def test_layers_of_different_inputs_are_joined_per_input():
    def two(self, x):
        y = torch.relu(x)
        return linear(x, self.a) + linear(y, self.a) * linear(x, self.b) - linear(y, self.b)

    module = FunctionModule(two, {"a": torch.randn(5, 4), "b": torch.randn(5, 4)})
    program = check_applies(fuse_projections, module, {"x": X}, times=4)
    assert operators(program).count(aten.linear.default) == 2


def test_a_layer_used_twice_is_joined_with_itself():
    module = FunctionModule(lambda self, x: linear(x, self.a) + linear(x + 0.0, self.a), {"a": torch.randn(5, 4)})
    check_applies(fuse_projections, module, {"x": X}, times=2)


NEAR_MISSES = {
    "one layer": lambda self, x: linear(x, self.a),
    "one with bias, one without": lambda self, x: linear(x, self.a) + linear(x, self.b, self.c),
    "one after another": lambda self, x: linear(linear(x, self.a), self.d),
    "two inputs": lambda self, x: linear(x, self.a) + linear(x + 1, self.b),
    "a computed weight": lambda self, x: linear(x, self.a) + linear(x, self.b * 2),
    "a computed bias": lambda self, x: linear(x, self.a, self.c) + linear(x, self.b, self.c * 2),
}


@pytest.mark.parametrize("function", NEAR_MISSES.values(), ids=NEAR_MISSES)
def test_what_is_one_detail_away_stays(function):
    shapes = {"a": (5, 4), "b": (5, 4), "c": (5,), "d": (5, 5)}
    module = FunctionModule(function, {name: torch.randn(shape) for name, shape in shapes.items()})
    check_misses(fuse_projections, module, {"x": X})


def test_a_weight_that_is_an_input_stays():
    check_misses(fuse_projections, lambda x, w: linear(x, w) + linear(x, w), {"x": X, "w": torch.randn(5, 4)})
