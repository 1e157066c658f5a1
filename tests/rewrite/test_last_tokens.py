"""The choice of the last tokens moves up through what treats each position alone, and through nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ditto import ops
from ditto.rewrite.last_tokens import choose_last_tokens_early
from tests.support.layers import FLOATS
from tests.support.programs import FunctionModule, captured, operators
from tests.support.rewriting import check_applies, check_misses

aten = torch.ops.aten
_last = torch.ops.ditto.last_tokens.default

X = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
INDICES = torch.tensor([4, 0, 2], dtype=torch.int32)
# The index comes first, so that a choice fits behind every later node.
INPUTS = {"indices": INDICES, "x": X}
NAMES = {"indices": "batch", "x": "batch sequence"}
WEIGHTS = {"w": torch.randn(6, 4), "b": torch.randn(6), "n": torch.randn(4), "s": torch.randn(4, 4)}

# A chain, and how many operators the choice moves through.
MOVES = {
    "a projection": (lambda self, x: nn.functional.linear(x, self.w, self.b), 1),
    "two projections": (lambda self, x: nn.functional.linear(nn.functional.linear(x, self.s), self.w), 2),
    "a norm": (lambda self, x: ops.rms_norm(x, self.n, 1e-3), 1),
    "a layer norm": (lambda self, x: nn.functional.layer_norm(x, (4,), self.n), 1),
    "activations": (lambda self, x: torch.relu(x) * nn.functional.silu(x).sigmoid().tanh(), 5),
    "gelu": (lambda self, x: nn.functional.gelu(x, approximate="tanh"), 1),
    "numbers": (lambda self, x: (x * 2 + 1) / 3 - 0.5, 4),
    "a soft-cap": (lambda self, x: 2.0 * torch.tanh(nn.functional.linear(x, self.w) / 2.0), 4),
    "a cast": (lambda self, x: x.half(), 1),
    "a softmax over the width": (lambda self, x: x.softmax(-1), 1),
    "a mean over the width": (lambda self, x: x - x.mean(-1, keepdim=True), 2),
    "halves of the width in the other order": (lambda self, x: torch.cat((x[..., 2:], x[..., :2]), -1), 3),
    "a choice": (lambda self, x: torch.where(x > 0, x.exp(), x.abs()), 4),
    "a part of the width": (lambda self, x: x[..., 1:3] + x[:, :, 2:], 3),
    "a weight per column": (lambda self, x: x * self.n, 1),
    "a residual": (lambda self, x: x + nn.functional.linear(torch.relu(x), self.s), 3),
    "a residual of a residual": (lambda self, x: self.mlp(self.mlp(x)), 6),
    "a factor per position": (lambda self, x: torch.relu(x) * x[..., :1], 3),
}


class _Chain(FunctionModule):
    def mlp(self, x):
        return x + nn.functional.linear(torch.relu(x), self.s)

    def forward(self, indices, x):
        return ops.last_tokens(self.function(self, x), indices)


@pytest.mark.parametrize(("function", "times"), MOVES.values(), ids=MOVES)
@pytest.mark.parametrize("names", [None, NAMES], ids=["static", "dynamic"])
def test_the_choice_moves_up(function, times, names):
    program = check_applies(choose_last_tokens_early, _Chain(function, WEIGHTS), INPUTS, times, names)
    (first, *_) = operators(program)
    assert first == _last
    assert operators(program).count(_last) == 1, "the input's last tokens are chosen once"


class _Packed(FunctionModule):
    def forward(self, ends, x):
        return ops.packed_last_tokens(x + nn.functional.linear(torch.relu(x), self.s), ends)


def test_the_choice_among_packed_tokens_moves_up_too():
    ends = torch.tensor([1, 4, 5], dtype=torch.int32)
    program = check_applies(choose_last_tokens_early, _Packed(None, WEIGHTS), {"ends": ends, "x": X[:1]}, 3)
    packed = torch.ops.ditto.packed_last_tokens.default
    assert operators(program)[0] == packed and operators(program).count(packed) == 1


@pytest.mark.parametrize("dtype", FLOATS)
def test_shapes_and_dtypes_are_those_of_one_position(dtype):
    module = _Chain(lambda self, x: nn.functional.linear(torch.relu(x).float(), self.w), WEIGHTS)
    program = captured(module, {"indices": INDICES, "x": X.to(dtype)}, NAMES)
    choose_last_tokens_early(program)
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    assert all(str(program.spec(node)).split("[")[1].startswith("batch, 1, ") for node in calls)
    assert program.spec(calls[0]).dtype == dtype and program.spec(calls[-1]).dtype == torch.float32


STAYS = {
    "a running sum": lambda self, x: x.cumsum(1),
    "a softmax over positions": lambda self, x: x.softmax(1),
    "a mean over positions": lambda self, x: x.mean((1, 2), keepdim=True).expand(3, 5, 4),
    "a choice by position": lambda self, x: torch.where(self.p > 0, x, -1.0),
    "a norm over positions": lambda self, x: nn.functional.layer_norm(x, (5, 4)),
    "a shift": lambda self, x: torch.cat((x[:, 1:], x[:, :1]), 1),
    "a part of the positions": lambda self, x: x[:, 1:] if x.shape[1] > 5 else x[:, :5].flip(1),
    "attention": lambda self, x: ops.attention(*[x[:, None]] * 3, None, None, 0.5, True, 0, 0.0, 0)[:, 0],
    "a product": lambda self, x: x @ self.s,
    "an addend per position": lambda self, x: x + self.p,
    "an addend per position for one row": lambda self, x: x * self.p[None],
}


@pytest.mark.parametrize("function", STAYS.values(), ids=STAYS)
def test_the_choice_stays_behind_what_looks_at_other_positions(function):
    module = _Chain(function, {**WEIGHTS, "p": torch.randn(5, 4)})
    check_misses(choose_last_tokens_early, module, INPUTS)


class _Read(nn.Module):
    """The chosen tensor is read by somebody else, too."""

    def forward(self, indices, x):
        y = torch.relu(x)
        return ops.last_tokens(y, indices) + y.sum(1, keepdim=True)


def test_the_choice_stays_behind_what_somebody_else_reads():
    check_misses(choose_last_tokens_early, _Read(), INPUTS, NAMES)


class _ReadBefore(nn.Module):
    """What the choice moves through reads something that somebody else reads, too: that far and no further."""

    def forward(self, indices, x):
        y = torch.relu(x)
        return ops.last_tokens(torch.tanh(y), indices) + y.sum(1, keepdim=True)


def test_the_choice_moves_as_far_as_nobody_else_reads():
    program = check_applies(choose_last_tokens_early, _ReadBefore(), INPUTS, 1, NAMES)
    assert operators(program)[:3] == [aten.relu.default, _last, aten.tanh.default]


class _Two(nn.Module):
    """Two choices of one tensor, by different indices."""

    def forward(self, indices, others, x):
        y = torch.relu(x)
        return ops.last_tokens(y, indices) + ops.last_tokens(y, others)


def test_a_sum_and_the_norm_behind_it_stay_together():
    def function(self, x):
        total = x * 2
        mixed = ops.rms_norm(total, self.n, 1e-3).cumsum(1)  # looks at other positions
        return total + mixed

    program = check_applies(choose_last_tokens_early, _Chain(function, WEIGHTS), INPUTS, 1)
    assert operators(program) == [
        aten.mul.Tensor,
        torch.ops.ditto.rms_norm.default,
        aten.cumsum.default,
        _last,
        _last,
        aten.add.Tensor,
    ]


def test_choices_by_different_indices_stay():
    inputs = {"indices": INDICES, "others": torch.tensor([1, 1, 1], dtype=torch.int32), "x": X}
    check_misses(choose_last_tokens_early, _Two(), inputs)


class _IndexLast(nn.Module):
    """The index is an input behind the chosen one."""

    def forward(self, x, indices):
        return ops.last_tokens(torch.tanh(torch.relu(x)), indices)


def test_the_choice_stays_behind_its_index():
    program = check_applies(choose_last_tokens_early, _IndexLast(), {"x": X, "indices": INDICES}, 1)
    assert operators(program) == [aten.relu.default, _last, aten.tanh.default]
