"""Writes become new values: a program without them computes what the module with them computes."""

from __future__ import annotations

import pytest
import torch

from ditto.program import evaluate, is_mutating
from ditto.rewrite.functional import make_functional
from tests.support.programs import FunctionModule, captured

X = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0))


def _copied(x):
    return x * 1


def _in_place(x):
    y = _copied(x)
    y += 1
    y.mul_(2)
    return y + y.div_(3)


def _quotient(x):
    y = x.exp()
    y /= y.sum(-1, keepdim=True)
    return y


def _mask(x):
    return torch.zeros_like(x).scatter_(-1, x.topk(2).indices, 1.0)


def _assembled(x):
    y = x.new_empty((x.shape[0], 4, 8))
    y[..., :6] = x
    y[..., 6:] = x[..., :2] * 2
    return y


def _through_views(x):
    y = _copied(x)
    y[:, 1].add_(5)
    y.transpose(1, 2)[:, 2:4].zero_()
    y.permute(2, 0, 1)[1:3].mul_(3)
    return y


def _through_a_diagonal(x):
    y = _copied(x)
    y.diagonal(0, 1, 2).add_(5)
    return y


def _seen_by_older_views(x):
    y = _copied(x)
    older, flat = y[:, 1:], y.view(x.shape[0], 24)
    y.masked_fill_(x > 0, -1.0)
    older[..., 0].fill_(7)
    return older.sum(1) + flat[:, :6] + y[:, 0]


def _a_copy_stays(x):
    y = _copied(x)
    before = y.transpose(1, 2).reshape(x.shape[0], 24)
    y.add_(1)
    return before, y


def _broadcast_and_cast(x):
    y = x.half() * 1
    y[:, 2] = 3
    y += x[0, 0]
    y.copy_(x[:, :1])
    return y


def _parts(x):
    y = _copied(x)
    left, right = y.chunk(2, -1)
    y.add_(1)
    return left * right


def _inner_and_outer(x):
    y = _copied(x)
    view = y[:, 1:3]
    view.mul_(2)
    y.add_(1)
    view.sub_(3)
    return y, view


FUNCTIONS = [
    _in_place,
    _quotient,
    _mask,
    _assembled,
    _through_views,
    _seen_by_older_views,
    _a_copy_stays,
    _broadcast_and_cast,
    _parts,
    _inner_and_outer,
]


def _run(program, x):
    return evaluate(program, {"x": x.clone()}, {}.__getitem__)


def _outputs(function):
    wanted = function(X)
    return tuple(f"out{index}" for index in range(len(wanted))) if isinstance(wanted, tuple) else ("out",)


@pytest.mark.parametrize("names", [None, {"x": "batch"}], ids=["static", "dynamic"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_program_without_writes_computes_the_same(function, names):
    program = captured(function, {"x": X}, names, outputs=_outputs(function))
    assert make_functional(program) > 0
    assert not any(is_mutating(node) for node in program.graph.nodes if node.op == "call_function")
    for x in (X,) if names is None else (X, X[:1], torch.cat((X, -X))):
        wanted, found = function(x), _run(program, x)
        for one, other in zip(found, wanted if isinstance(wanted, tuple) else (wanted,), strict=True):
            torch.testing.assert_close(one, other)


def test_a_write_through_a_view_that_has_no_inverse_stays():
    program = captured(_through_a_diagonal, {"x": X})
    assert make_functional(program) == 0
    (found,) = _run(program, X)
    torch.testing.assert_close(found, _through_a_diagonal(X))


def test_other_memory_is_not_kept_from_it():
    def both(x):
        y, z = _copied(x), _copied(x)
        y.diagonal(0, 1, 2).add_(5)
        z.add_(1)
        return y + z

    program = captured(both, {"x": X})
    assert make_functional(program) == 1
    torch.testing.assert_close(_run(program, X)[0], both(X))


def test_writes_into_what_outlives_the_call_stay():
    def counts(self, x):
        self.calls.add_(1)
        return x + self.calls

    program = captured(FunctionModule(counts, buffers={"calls": torch.zeros(1)}), {"x": X})
    assert make_functional(program) == 0
