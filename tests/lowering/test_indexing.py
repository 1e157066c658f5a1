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
}


def test_every_lowering_of_the_module_has_rows():
    check_every_lowering_has_rows(ROWS, "indexing")


@pytest.mark.parametrize(("operator", "calls"), rows(ROWS))
def test_indexing_takes_what_torch_takes(operator, calls):
    check_rows(operator, calls)
