"""Arithmetic, comparison and choice compute what PyTorch computes, in the dtype in which PyTorch computes it."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from ditto.errors import ShapeError, UnsupportedFeature, UnsupportedOperator
from tests.support.layers import FLOATS, emitted
from tests.support.lowering import (
    ModuleTensors,
    Row,
    check_dynamic,
    check_every_lowering_has_rows,
    check_meaning,
    check_rows,
    lowered,
    rows,
)
from tests.support.programs import FunctionModule

aten = torch.ops.aten

_RANDOM = torch.Generator().manual_seed(0)
X = 2 * torch.randn(3, 2, 4, generator=_RANDOM)
Y = 2 * torch.randn(3, 2, 4, generator=_RANDOM)
LINE = torch.tensor([0.5, -1.5, 2.0, -4.0])
COLUMN = torch.randn(3, 1, 1, generator=_RANDOM)
POSITIVE = X.abs() + 0.1
INTEGERS = torch.tensor([[7, -7, 3, 2], [0, 5, -1, 4], [6, -2, 8, 1]])
OTHERS = torch.tensor([2, -2, 3, -1])
BOOLS = INTEGERS > 1
SCALAR = torch.tensor(1.5)

_FLOATING = [*(Row(X.to(dtype), Y.to(dtype)) for dtype in FLOATS), Row(X.half(), Y), Row(X.half(), Y.bfloat16())]
_BROADCAST = [Row(X, LINE), Row(LINE, X), Row(X, COLUMN), Row(X.half(), SCALAR), Row(SCALAR, X.bfloat16())]
_INTEGRAL = [
    Row(INTEGERS, OTHERS),
    Row(INTEGERS.int(), OTHERS.int()),
    Row(INTEGERS.int(), OTHERS),
    Row(INTEGERS, LINE),
    Row(INTEGERS, LINE.half()),
]
_NUMBERS = [Row(X, 2), Row(X.half(), -2.5), Row(X.bfloat16(), 3.0), Row(INTEGERS, 3), Row(INTEGERS.int(), 2.5)]
_BINARY = [*_FLOATING, *_BROADCAST, *_INTEGRAL, *_NUMBERS]
_FEW = [
    Row(X.half(), LINE.half()),
    Row(LINE, X.bfloat16()),
    Row(INTEGERS, OTHERS),
    Row(INTEGERS.int(), OTHERS),
    Row(OTHERS, INTEGERS.half()),
]
_FEW_NUMBERS = [Row(X.half(), -2.5), Row(INTEGERS.int(), 3), Row(INTEGERS, 2.5)]
_FACTORS = [Row(X, Y, alpha=2), Row(X.half(), LINE.half(), alpha=0.5), Row(INTEGERS, OTHERS, alpha=-3)]
_COMPARED = [*_FEW, Row(INTEGERS, INTEGERS.clone())]
_COMPARED_NUMBERS = [Row(INTEGERS, 3), Row(INTEGERS.int(), 2.5), Row(LINE.half(), -1.5)]
_LOGICAL = [Row(BOOLS, INTEGERS > 4), Row(BOOLS, OTHERS > 0), Row(OTHERS > 0, BOOLS)]
_UNARY = [*(Row(X.to(dtype)) for dtype in FLOATS), Row(INTEGERS)]
_UNARY_POSITIVE = [*(Row(POSITIVE.to(dtype)) for dtype in FLOATS), Row(INTEGERS.abs() + 1)]

ROWS = {
    aten.add.Tensor: [*_BINARY, *_FACTORS, Row(BOOLS, INTEGERS), Row(BOOLS, LINE)],
    aten.sub.Tensor: [*_FEW, *_FEW_NUMBERS, *_FACTORS],
    aten.rsub.Scalar: [Row(X, 1.0), Row(X.half(), 2), Row(INTEGERS, 1), Row(INTEGERS.int(), 2.5), Row(X, 1, 3)],
    aten.mul.Tensor: [*_FEW, *_FEW_NUMBERS, Row(BOOLS, LINE), Row(BOOLS, INTEGERS)],
    aten.div.Tensor: _BINARY,
    aten.div.Tensor_mode: [
        *(Row(*row.args, rounding_mode="floor") for row in (*_FEW, *_FEW_NUMBERS)),
        *(Row(INTEGERS, by, rounding_mode="trunc") for by in (OTHERS, 3, -2)),
        *(Row(x, 4, rounding_mode=None) for x in (X, X.half(), INTEGERS)),
    ],
    aten.floor_divide.default: [*_FEW, *_FEW_NUMBERS],
    aten.pow.Tensor_Scalar: [
        *(Row(X.to(dtype), exponent) for dtype in FLOATS for exponent in (2, 3, 2.0)),
        *(Row(POSITIVE, exponent) for exponent in (0.5, -0.5, -1, 1.5)),
        *(Row(INTEGERS, exponent) for exponent in (2, 3, 1)),
        Row(INTEGERS.abs() + 1, 0.5),
        Row(INTEGERS.abs().int() + 1, -0.5),
    ],
    aten.pow.Scalar: [*(Row(2.0, x) for x in (X, X.half(), X.bfloat16())), Row(0.5, INTEGERS.float())],
    aten.pow.Tensor_Tensor: [
        Row(POSITIVE, X),
        Row(POSITIVE.half(), LINE.half()),
        Row(POSITIVE, torch.tensor([1, 2, 3, 0])),
    ],
    aten.maximum.default: _FEW,
    aten.minimum.default: _FEW,
    aten.max.other: _FEW,
    aten.min.other: _FEW,
    aten.clamp.default: [
        *(Row(X.to(dtype), -1, 0.5) for dtype in FLOATS),
        Row(X, None, 1.0),
        Row(X, 0),
        Row(INTEGERS, 0, 4),
        Row(INTEGERS.int(), 0.5),
    ],
    aten.clamp.Tensor: [
        *(Row(X.to(dtype), LINE.to(dtype)) for dtype in FLOATS),
        Row(X, None, LINE),
        Row(X, LINE, LINE + 0.1),
        Row(X, LINE + 0.1, LINE),
    ],
    aten.clip.default: [Row(X, -1, 0.5), Row(X.half(), None, 1.0), Row(INTEGERS, 0)],
    aten.square.default: [*_UNARY, Row(INTEGERS)],
    aten.neg.default: _UNARY,
    aten.abs.default: _UNARY,
    aten.exp.default: _UNARY,
    aten.expm1.default: _UNARY,
    aten.floor.default: [*_UNARY, Row(INTEGERS)],
    aten.log1p.default: _UNARY_POSITIVE,
    aten.log.default: _UNARY_POSITIVE,
    aten.sqrt.default: _UNARY_POSITIVE,
    aten.rsqrt.default: _UNARY_POSITIVE,
    aten.reciprocal.default: _UNARY_POSITIVE,
    aten.sin.default: _UNARY,
    aten.cos.default: _UNARY,
    aten.erf.default: _UNARY,
    aten.to.dtype: [
        Row(x.to(before), after)
        for x, before, after in product(
            [X], (*FLOATS, torch.int64, torch.int32, torch.bool), (*FLOATS, torch.int64, torch.int32, torch.bool)
        )
        if before != after
    ],
    **{
        getattr(aten, name).Tensor: [*_COMPARED, *([Row(BOOLS, OTHERS > 0)] if name in ("eq", "ne") else [])]
        for name in ("eq", "ne", "gt", "lt", "le", "ge")
    },
    **{getattr(aten, name).Scalar: _COMPARED_NUMBERS for name in ("eq", "ne", "gt", "lt", "le", "ge")},
    aten.logical_and.default: _LOGICAL,
    aten.__and__.Tensor: _LOGICAL,
    aten.bitwise_and.Tensor: _LOGICAL,
    aten.logical_or.default: _LOGICAL,
    aten.__or__.Tensor: _LOGICAL,
    aten.bitwise_or.Tensor: _LOGICAL,
    aten.logical_not.default: [Row(BOOLS)],
    aten.bitwise_not.default: [Row(BOOLS)],
    aten.where.self: [
        *(Row(BOOLS, INTEGERS.to(dtype), LINE.to(dtype)) for dtype in (*FLOATS, torch.int32)),
        Row(LINE > 0, X, COLUMN),
        Row(BOOLS[:, None], X.half(), Y),
        Row(BOOLS, INTEGERS, LINE),
        Row(BOOLS, SCALAR, LINE.half()),
        Row(BOOLS, INTEGERS > 4, BOOLS.logical_not()),
    ],
    aten.where.ScalarSelf: [Row(BOOLS, 1.5, LINE.half()), Row(BOOLS, 2, INTEGERS), Row(LINE > 0, 0.0, X)],
    aten.where.Scalar: [Row(BOOLS, 1.5, -2.0), Row(BOOLS, 1, 0)],
    aten.where.ScalarOther: [Row(BOOLS, LINE.half(), float("-inf")), Row(BOOLS, INTEGERS, 0), Row(LINE > 0, X, 1)],
    aten.masked_fill.Tensor: [Row(X, BOOLS[:, None], SCALAR), Row(X.half(), OTHERS > 0, SCALAR.half())],
    aten.masked_fill.Scalar: [
        *(Row(X.to(dtype), BOOLS[:, None], float("-inf")) for dtype in FLOATS),
        Row(LINE.expand(3, 4), BOOLS, torch.finfo(torch.float32).min),
        Row(X, OTHERS > 0, 0),
        Row(INTEGERS, BOOLS, -1),
    ],
}


def test_every_lowering_of_the_module_has_rows():
    check_every_lowering_has_rows(ROWS, "arithmetic")


@pytest.mark.parametrize(("operator", "calls"), rows(ROWS))
def test_arithmetic_computes_what_torch_computes(operator, calls):
    check_rows(operator, calls)


EXPRESSIONS = {
    "a number minus a tensor": lambda x: 1 - x,
    "a number over a tensor": lambda x: 2 / (x + 10),
    "a number times a tensor": lambda x: 2.5 * x + True,
    "a number compared": lambda x: (x > 0) | ~(x <= 1),
    "a size added": lambda x: x + x.shape[0],
    "a size in front": lambda x: x.shape[0] * 2 - x,
    "a size compared": lambda x: x < x.shape[0] - 1,
    "a size divided": lambda x: x / x.shape[0],
    "a size chosen": lambda x: torch.where(x > 0, torch.arange(x.shape[0])[:, None, None] + 1, 0),
}


@pytest.mark.parametrize("function", EXPRESSIONS.values(), ids=EXPRESSIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int64])
def test_numbers_and_sizes_stand_on_either_side(function, dtype):
    check_dynamic(FunctionModule(function), {"x": X.to(dtype)})


REFUSED = [
    (lambda x: torch.div(x, 2, rounding_mode="trunc"), X, UnsupportedFeature, "floating division with rounding mode"),
    (lambda x: x & 1, INTEGERS, UnsupportedOperator, "aten.__and__.Scalar"),
    (lambda x: torch.bitwise_and(x, x + 1), INTEGERS, UnsupportedFeature, "a bitwise operator on torch.int64"),
    (lambda x: torch.logical_or(x, x > 0), INTEGERS, UnsupportedFeature, "a bitwise operator on torch.int64"),
    (lambda x: torch.logical_not(x), INTEGERS, UnsupportedFeature, "a logical operator on torch.int64"),
    (lambda x: x > (x & x), BOOLS, ShapeError, "GREATER of bool tensors"),
]


@pytest.mark.parametrize(("function", "x", "error", "said"), REFUSED)
def test_what_has_no_layer_is_refused(function, x, error, said):
    with pytest.raises(error, match=said):
        lowered(function, {"x": x})


@pytest.mark.parametrize("alpha", [2, 0.5])
@pytest.mark.parametrize("operator", [aten.add.Tensor, aten.sub.Tensor])
def test_a_factor_is_kept_when_weights_are_folded(operator, alpha):
    module = FunctionModule(lambda self, x: operator(self.a, self.b, alpha=alpha), {"a": X, "b": LINE})
    network = lowered(module, {"x": X})
    assert [type(node.layer).__name__ for node in network.nodes] == ["Constant"]
    check_meaning(network, module, {"x": X})
    emitted(network, ModuleTensors(module))
