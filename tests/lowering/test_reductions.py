"""Reductions compute what PyTorch computes, along the axes that PyTorch means."""

from __future__ import annotations

import pytest
import torch

from ditto.errors import ShapeError, UnsupportedFeature
from tests.support.layers import FLOATS
from tests.support.lowering import Row, check_every_lowering_has_rows, check_rows, lowered, rows

aten = torch.ops.aten

X = torch.randn(3, 2, 8, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(3, 2, 6, 12, generator=torch.Generator().manual_seed(1))
_EACH = [Row(X.to(dtype), [axis], keep) for dtype in FLOATS for axis in (-1, 1) for keep in (True, False)]
_SUMS = [
    *_EACH,
    Row(X, [-1, 1]),
    Row(X, [2, -2], True),
    Row(X, None, static=True),
    Row(X, [0], static=True),
    Row(X.half(), [-1], True, dtype=torch.float32),
]
_EXTREMES = [*_EACH[::3], Row(X, [-1, 1]), Row(X, [0], static=True), Row(X, static=True), Row(X, [], static=True)]

ROWS = {
    aten.mean.dim: [*_SUMS, Row(torch.arange(6).reshape(3, 2), [1], dtype=torch.float32)],
    aten.sum.dim_IntList: _SUMS,
    aten.linalg_vector_norm.default: [
        *(Row(X.to(dtype), order, [-1], True) for dtype in FLOATS for order in (1, 2.0)),
        Row(X, 2, [1, 2]),
        Row(X.half(), 1.0, [-1], dtype=torch.float32),
        # Squares that float16 cannot hold: too large, and too small but for their number.
        Row(X.half() * 300, 2, [-1], True),
        Row(torch.full((2, 1 << 16), 1e-4).half(), 2, [-1], True),
        Row(X, 1, static=True),
    ],
    aten.std.dim: [
        *(
            Row(X.to(dtype), [-1], unbiased, keep)
            for dtype in FLOATS
            for unbiased in (True, False)
            for keep in (True, False)
        ),
        Row(X, [2, 1]),
        Row(X + 100, [-1], False),
    ],
    aten.amax.default: _EXTREMES,
    aten.amin.default: _EXTREMES,
    aten.avg_pool2d.default: [
        *(Row(IMAGES.to(dtype), [2, 3]) for dtype in FLOATS),
        Row(IMAGES[0], [3, 3], [3, 3]),
        Row(IMAGES, [2], [2], [0], True),
    ],
}


def test_every_lowering_of_the_module_has_rows():
    check_every_lowering_has_rows(ROWS, "reductions")


@pytest.mark.parametrize(("operator", "calls"), rows(ROWS))
def test_reductions_compute_what_torch_computes(operator, calls):
    check_rows(operator, calls)


@pytest.mark.parametrize("x", [torch.arange(6).reshape(3, 2), torch.ones(3, 2, dtype=torch.bool)], ids=["int", "bool"])
def test_sums_of_integers_are_refused(x):
    with pytest.raises(ShapeError, match="needs a floating dtype"):
        lowered(lambda x: x.sum(-1), {"x": x})


@pytest.mark.parametrize("given", [((4,), (4,)), ((2,), (1,)), ((2,), (2,), (1,)), ((2,), (2,), (0,), False, True, 3)])
def test_windows_that_do_not_tile_an_image_are_refused(given):
    with pytest.raises(UnsupportedFeature, match="average pooling (whose|of images that its) windows"):
        lowered(lambda x: torch.nn.functional.avg_pool2d(x, *given), {"x": IMAGES[..., :10]})
