"""Rows by index are the rows that PyTorch takes."""

from __future__ import annotations

import pytest
import torch

from tests.support.layers import FLOATS
from tests.support.lowering import BATCH, Row, check_every_lowering_has_rows, check_rows, rows

aten = torch.ops.aten

TABLE = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
IDS = torch.tensor([[6, 0], [3, 3], [1, 5]])
X = torch.randn(BATCH, 2, 4, generator=torch.Generator().manual_seed(1))
PLACES = torch.tensor([[[3, 0], [1, 2]], [[0, 1], [2, 3]], [[1, 3], [0, 2]]])

ROWS = {
    aten.embedding.default: [
        *(Row(TABLE.to(dtype), IDS) for dtype in FLOATS),
        Row(TABLE, IDS.int()),
        Row(TABLE, IDS[:, 0], 1),
        Row(TABLE, IDS[None, None], static=True),
    ],
    aten.index_select.default: [
        Row(X, 1, torch.tensor([1, 0, 1, 1])),
        Row(X.half(), -1, torch.tensor([3, 0], dtype=torch.int32)),
        Row(TABLE, 0, IDS[:, 0]),
    ],
    aten.flip.default: [
        *(Row(X.to(dtype), [-1]) for dtype in FLOATS),
        Row(X, [2, 1]),
        Row(X, []),
        Row(X[0], [0], static=True),
    ],
    aten.index.Tensor: [
        Row(TABLE, [IDS]),
        Row(TABLE.half(), [IDS[:, 0]]),
        Row(X, [None, None, torch.tensor([3, 0])]),
        Row(X, [None, torch.tensor([-1, 0, -2])]),
        Row(TABLE[0], [torch.tensor([[3, -1], [0, 2]])], static=True),
    ],
    aten.gather.default: [
        *(Row(X.to(dtype), 2, torch.tensor([[[3, 0], [1, 1]]]).expand(3, -1, -1)) for dtype in FLOATS),
        Row(X, 1, torch.tensor([[[1, 0, 0, 1]]]).expand(3, -1, -1)),
        Row(X, -1, torch.tensor([[[2]]]).expand(3, 1, 1)),
    ],
    aten.topk.default: [
        *(Row(X.to(dtype), 2, result=i) for dtype in FLOATS for i in (0, 1)),
        Row(X, 1, 1, result=0),
        Row(X, 4, -1, result=1),
    ],
    aten.max.dim: [
        *(
            Row(X.to(dtype), axis, keep, result=i)
            for dtype in FLOATS
            for axis in (1, -1)
            for keep in (True, False)
            for i in (0, 1)
        ),
    ],
    aten.scatter.value: [
        *(Row(X.to(dtype), 2, PLACES, -7.0) for dtype in FLOATS),
        Row(X, -1, PLACES[..., :1], float("-inf")),
        Row(X > 0, -1, PLACES, True),
    ],
    aten.scatter.src: [
        Row(X, 2, PLACES, 2 * X[..., :2]),
        Row(X.half(), -1, PLACES, X[..., 2:].half()),
        Row(torch.full_like(X, float("-inf")), -1, PLACES, X[..., :2]),
    ],
}


def test_every_lowering_of_the_module_has_rows():
    check_every_lowering_has_rows(ROWS, "indexing")


@pytest.mark.parametrize(("operator", "calls"), rows(ROWS))
def test_indexing_takes_what_torch_takes(operator, calls):
    check_rows(operator, calls)
