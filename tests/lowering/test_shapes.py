"""Operators that move, repeat, cut and join do so as in PyTorch, along static and dynamic axes."""

from __future__ import annotations

import pytest
import torch

from ditto.errors import ShapeError, UnsupportedFeature
from ditto.network import symbol
from ditto.network.layers import Shuffle
from ditto.passes import SIMPLIFY, run_passes
from tests.support.lowering import Row, check_dynamic, check_every_lowering_has_rows, check_rows, lowered, rows
from tests.support.programs import FunctionModule

aten = torch.ops.aten

X = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0))
INTEGERS = torch.arange(24).reshape(3, 2, 4)
BOOLS = INTEGERS % 3 == 1
_DTYPES = [X, X.half(), INTEGERS, INTEGERS.int(), BOOLS]
_LAST = 9223372036854775807

ROWS = {
    aten.view.default: [*(Row(x, [-1, 8]) for x in _DTYPES), Row(X, [-1]), Row(X, [6, 4], static=True)],
    aten._unsafe_view.default: [Row(X, [-1, 4, 2]), Row(INTEGERS, [2, 12], static=True)],
    aten.reshape.default: [Row(X, [-1, 4, 1, 2]), Row(X.transpose(1, 2), [-1, 8]), Row(X, [24], static=True)],
    aten.flatten.using_ints: [Row(X), Row(X, 1), Row(X, -2, -1), Row(X, 0, 1)],
    aten.unflatten.int: [Row(X, 2, [2, 2]), Row(X, -1, [-1, 4]), Row(X, 1, [1, 2])],
    aten.squeeze.default: [Row(X[:, :1], static=True), Row(X, static=True)],
    aten.view_as.default: [Row(X, X.flatten(1)), Row(INTEGERS, X[:, :, None])],
    aten.reshape_as.default: [Row(X, X.flatten(1)), Row(X.transpose(1, 2), X)],
    aten.numpy_T.default: [Row(X[0], static=True), Row(X, static=True)],
    aten.t.default: [Row(X[:, 0], static=True), Row(X[0, 0], static=True)],
    aten.expand_as.default: [Row(X[:, :1], X), Row(X[0], X), Row(X[:, :, :1].half(), X)],
    aten.repeat_interleave.self_int: [*(Row(x, 3, 1) for x in _DTYPES), Row(X, 2, -1), Row(X, 2, 0, static=True)],
    aten.repeat.default: [*(Row(x, [1, 3, 2]) for x in _DTYPES), Row(X, [2, 1, 1, 3]), Row(X, [2, 1, 1], static=True)],
    aten.unsqueeze.default: [*(Row(x, 1) for x in _DTYPES), Row(X, 0), Row(X, -1), Row(X, 3)],
    aten.squeeze.dim: [Row(X[:, :1], 1), Row(X[:, :1], -2), Row(X, 1), Row(X[:, None], 1)],
    aten.transpose.int: [*(Row(x, 1, 2) for x in _DTYPES), Row(X, 0, -1), Row(X, -2, -1), Row(X, 1, 1)],
    aten.permute.default: [Row(X, [2, 0, 1]), Row(X.half(), [0, -1, 1]), Row(X, [0, 1, 2])],
    aten.expand.default: [
        *(Row(x[:, :1], [-1, 5, 4]) for x in _DTYPES),
        Row(X[:, :1, :1], [2, -1, 5, 4]),
        Row(X[:1, 0], [2, 6, 4], static=True),
        Row(X[0, 0], [2, 3, 4], static=True),
        Row(X, [-1, -1, -1]),
    ],
    aten.slice.Tensor: [
        *(Row(x, 1, 1, 2) for x in _DTYPES),
        *(Row(X, 2, start, end) for start in (None, 0, 1, -3, -9) for end in (_LAST, 3, -1)),
        Row(X, -1, 0, _LAST, 2),
        Row(X, 2, 1, 4, 3),
        Row(X),
    ],
    aten.select.int: [*(Row(x, 1, 1) for x in _DTYPES), Row(X, -1, -2), Row(X, 0, 0), Row(X, 0, -1, static=True)],
    aten.concat.default: [Row([X, X.half()], -1)],
    aten.cat.default: [
        *(Row([x, x[:, :1]], 1) for x in _DTYPES),
        Row([X, X.half()], -1),
        Row([X, INTEGERS], 2),
        Row([X, X]),
        Row([X], 1),
    ],
    aten.stack.default: [
        *(Row([x, x], 1) for x in _DTYPES),
        Row([X, -X, 2 * X], -1),
        Row([X, X]),
        Row([X.half(), X], 3),
    ],
    aten.split_with_sizes.default: [Row(X, [1, 3], 2, result=i) for i in (0, 1)]
    + [Row(X.half(), [1, 2, 1], -1, result=1), Row(X, [2, 1], result=1, static=True)],
    aten.split.Tensor: [Row(X, 3, 2, result=i) for i in (0, 1)]
    + [Row(X, 1, -2, result=1), Row(X, 2, result=1, static=True)],
    aten.unbind.int: [Row(X, 1, result=i) for i in (0, 1)]
    + [Row(x, -1, result=2) for x in _DTYPES]
    + [Row(X, result=1, static=True)],
    aten.chunk.default: [Row(X, 2, 2, result=i) for i in (0, 1)]
    + [Row(X, 3, -1, result=1), Row(X, 3, result=2, static=True)],
    aten.arange.default: [
        *(Row(5, dtype=dtype) for dtype in (torch.int64, torch.int32, torch.float32)),
        Row(4),
        Row(2.5, dtype=torch.float16, pin_memory=False),
    ],
    aten.arange.start: [Row(2, 7), Row(-2, 3, dtype=torch.int32), Row(1, 4, dtype=torch.float32)],
    aten.ones_like.default: [*(Row(x) for x in _DTYPES), Row(X, dtype=torch.bool), Row(INTEGERS, dtype=torch.float16)],
    aten.zeros_like.default: [*(Row(x) for x in _DTYPES), Row(BOOLS, dtype=torch.int32)],
    aten.full_like.default: [*(Row(x, 1) for x in _DTYPES), Row(X, 2.5), Row(INTEGERS, 2.5, dtype=torch.float16)],
    aten.new_zeros.default: [*(Row(x, [2, 3]) for x in _DTYPES), Row(X, [4], dtype=torch.int32)],
    aten.new_ones.default: [*(Row(x, [2, 3]) for x in _DTYPES), Row(X, [4], dtype=torch.bool)],
    aten.new_full.default: [*(Row(x, [2, 3], 1) for x in _DTYPES), Row(X, [4], 2.5, dtype=torch.float16)],
    aten.new_empty.default: [Row(X, [2, 0])],
    aten.full.default: [
        *(Row([2, 3], number) for number in (2, 2.5, True)),
        Row([4], 7, dtype=torch.float16, device="cpu", pin_memory=False),
        Row([2, 2], float("-inf"), dtype=torch.float32),
        Row([], 3.0),
    ],
    aten.zeros.default: [Row([2, 3]), Row([2], dtype=torch.int64), Row([1, 2], dtype=torch.bool, device="cpu")],
    aten.ones.default: [Row([2, 3]), Row([2], dtype=torch.int64), Row([1, 2], dtype=torch.bool, device="cpu")],
}


def test_every_lowering_of_the_module_has_rows():
    check_every_lowering_has_rows(ROWS, "shapes")


@pytest.mark.parametrize(("operator", "calls"), rows(ROWS))
def test_shapes_are_made_as_torch_makes_them(operator, calls):
    check_rows(operator, calls)


# With sizes that depend on the input's: `n` is the dynamic first axis.
DYNAMIC = {
    "view as one axis": lambda x: x.view(x.shape[0] * 2, 4),
    "view with two sizes to compute": lambda x: x.reshape(1, x.shape[0] * 2, 4).expand(x.shape[0], -1, -1),
    "split a merged axis": lambda x: x.reshape(-1, 4).unflatten(0, (x.shape[0], 2)),
    "expand to": lambda x: x[:1, :1].expand(x.shape[0], 2, 4) + x,
    "expand a number": lambda x: torch.full((), 2.0).expand(x.shape[0], 1, 1) + x,
    "cut an axis to": lambda x: torch.cat((x, x))[: x.shape[0]],
    "cut from a number on": lambda x: torch.cat((x, x))[1:],
    "drop the last": lambda x: torch.cat((x, x))[:-1],
    "select the first": lambda x: x[0] + x,
    "join along": lambda x: torch.cat((x, x[:1], x)),
    "stack in front": lambda x: torch.stack((x, x)),
    "range": lambda x: torch.arange(x.shape[0], dtype=torch.int32),
    "range from a number": lambda x: torch.arange(2, x.shape[0] + 3),
    "range up to twice": lambda x: torch.arange(2 * x.shape[0] + 1),
    "ones": lambda x: torch.ones(x.shape[0], 3),
    "zeros": lambda x: torch.zeros(2, x.shape[0], dtype=torch.int64),
    "full": lambda x: torch.full((x.shape[0], x.shape[0]), -1.5, dtype=torch.float16),
    "true": lambda x: torch.ones(x.shape[0], 2, dtype=torch.bool),
    "false like": lambda x: torch.zeros_like(x, dtype=torch.bool),
    "transposed and merged": lambda x: x.transpose(0, 1).reshape(2, -1),
}


@pytest.mark.parametrize("function", DYNAMIC.values(), ids=DYNAMIC)
def test_sizes_follow_the_inputs(function):
    check_dynamic(FunctionModule(function), {"x": X})


def test_shuffles_of_shuffles_are_one():
    network = run_passes(lowered(lambda x: x.transpose(1, 2).reshape(-1, 8), {"x": X}, {"x": "batch"}), SIMPLIFY)
    assert [node.layer for node in network.nodes] == [Shuffle(first=(0, 2, 1), reshape=(0, 8))]
    assert network.value(network.outputs["result"]).spec.shape == (symbol("batch"), 8)


def _from_the_end(x):
    return torch.cat((x, x))[-2:]


def _from_a_size(x):
    return torch.arange(x.shape[0], 2 * x.shape[0])


def _floating_range(x):
    return torch.arange(x.shape[0] + 1, dtype=torch.float32)


REFUSED = [
    (_from_the_end, UnsupportedFeature, "a slice whose start depends on sizes"),
    (lambda x: x[-1], UnsupportedFeature, "a selected index that depends on sizes"),
    (_from_a_size, UnsupportedFeature, "a range that starts at a size"),
    (_floating_range, ShapeError, "needs an integer dtype, got float32[batch + 1]"),
]


@pytest.mark.parametrize(("function", "error", "said"), REFUSED)
def test_what_has_no_layer_is_refused(function, error, said):
    with pytest.raises(error) as raised:
        lowered(function, {"x": X}, {"x": "batch"})
    assert raised.value.cause == said
