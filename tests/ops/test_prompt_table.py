"""Virtual token ids select rows of the prompt embedding table."""

from __future__ import annotations

import pytest
import torch

from ditto import ops

VOCABULARY = 10


@pytest.mark.parametrize("integer", [torch.int32, torch.int64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_ids_from_the_vocabulary_on_select_rows_and_others_row_0(integer, dtype):
    table = torch.randn(3, 4).to(dtype)
    ids = torch.tensor([[0, 10, 12, 9], [11, 3, 10, 10]], dtype=integer)
    rows = [[0, 0, 2, 0], [1, 0, 0, 0]]
    found = ops.prompt_rows(ids, table, VOCABULARY)
    assert found.dtype == dtype
    for b, s in ((b, s) for b in range(2) for s in range(4)):
        assert torch.equal(found[b, s], table[rows[b][s]])


@pytest.mark.parametrize("integer", [torch.int32, torch.int64])
def test_the_fake_has_the_shape_and_dtype_of_the_real_one(integer):
    ids = torch.tensor([[1, 10], [11, 3]], dtype=integer)
    torch.library.opcheck(torch.ops.ditto.prompt_rows.default, (ids, torch.randn(3, 4), VOCABULARY))
