"""Operators on weights are done once, when the weight is resolved: their numbers are PyTorch's."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from ditto.lowering import table
from ditto.lowering.folding import _FOLDS, fold_call
from ditto.network.dims import symbol
from ditto.network.spec import Spec
from ditto.network.weight import Literals, resolve, spec_of

aten = torch.ops.aten

X = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
LINE = torch.tensor([0.5, 1.5, 2.0, 4.0])
ROWS = torch.tensor([[2, 0], [1, 1]])

# Operator → arguments; their names where the graph gives them by name.
CALLS = {
    aten.to.dtype: [((X, torch.float16), {}), ((X, torch.float32), {})],
    aten.view.default: [((X, [3, -1]), {})],
    aten.reshape.default: [((X, [24]), {})],
    aten.squeeze.dim: [((X[:, :1], 1), {}), ((X[:1], -3), {}), ((X, 1), {})],
    aten.unsqueeze.default: [((X, 0), {}), ((X, -1), {}), ((X, 2), {})],
    aten.transpose.int: [((X, -1, 0), {}), ((X, 1, 2), {})],
    aten.permute.default: [((X, [2, -3, 1]), {})],
    aten.t.default: [((X[0],), {}), ((LINE,), {})],
    aten.numpy_T.default: [((X,), {})],
    aten.expand.default: [((LINE, [2, 3, -1]), {}), ((X[:, :1], [2, 5, 4]), {"implicit": False})],
    aten.slice.Tensor: [
        ((X, 1, 1), {}),
        ((X, -1, 0, -1), {}),
        ((X, 2, -3, 9223372036854775807), {}),
        ((X, 2, 0, 4, 3), {}),
        ((X,), {}),
    ],
    aten.cat.default: [(([X, X + 1], 1), {}), (([X, X + 1],), {}), (([X, X + 1], -1), {})],
    aten.embedding.default: [((X[0], ROWS), {}), ((X[0], ROWS, 1), {})],
    aten.add.Tensor: [((X, LINE), {}), ((X, 2), {}), ((1.0, X), {}), ((X, LINE), {"alpha": 2}), ((X, 3), {"alpha": 2})],
    aten.sub.Tensor: [((X, LINE), {}), ((X, LINE), {"alpha": 0.5}), ((X, 3), {"alpha": 2})],
    aten.mul.Tensor: [((X, LINE), {}), ((X, 2), {}), ((X.half(), LINE), {})],
    aten.div.Tensor: [((X, LINE), {}), ((ROWS, 3), {})],
    aten.neg.default: [((X,), {})],
    aten.exp.default: [((X,), {}), ((ROWS,), {})],
    aten.sqrt.default: [((LINE,), {}), ((ROWS,), {})],
}


class _Nowhere:
    def tensor(self, name):
        raise AssertionError(name)


@pytest.mark.parametrize(
    ("operator", "args", "kwargs"), [(operator, *call) for operator, calls in CALLS.items() for call in calls]
)
def test_a_folded_call_gives_what_torch_gives(operator, args, kwargs):
    literals = Literals()

    def kept(arg):
        if isinstance(arg, torch.Tensor):
            return literals.keep(arg)
        return [kept(item) for item in arg] if isinstance(arg, list) and isinstance(arg[0], torch.Tensor) else arg

    first = torch.tensor(args[0]) if isinstance(args[0], float) else args[0]
    wanted = operator(first, *args[1:], **kwargs)
    made = fold_call(operator, tuple(map(kept, args)), kwargs)
    assert made is not None
    assert spec_of(made) == Spec.of(wanted)
    assert_close(resolve(made, _Nowhere(), literals), wanted)


def test_every_fold_is_tested_and_has_a_lowering_for_operands_that_are_not_constant():
    assert set(_FOLDS) == set(CALLS)
    assert set(_FOLDS) <= set(table())


def test_calls_with_other_operands_are_not_folded():
    weight = Literals().keep(X)
    assert fold_call(aten.tanh.default, (weight,), {}) is None
    assert fold_call(aten.add.Tensor, (weight, object()), {}) is None
    assert fold_call(aten.view.default, (weight, [symbol("batch"), 4]), {}) is None
    assert fold_call(aten.add.Tensor, (1, 2), {}) is None
