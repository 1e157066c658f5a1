"""One position of each row is chosen."""

from __future__ import annotations

import pytest
import torch

from ditto import ops


@pytest.mark.parametrize("integer", [torch.int32, torch.int64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_each_row_gives_the_position_of_its_own_index(integer, dtype):
    x = torch.randn(3, 5, 4).to(dtype)
    found = ops.last_tokens(x, torch.tensor([4, 0, 2], dtype=integer))
    assert torch.equal(found, torch.stack((x[0, 4:5], x[1, 0:1], x[2, 2:3])))


@pytest.mark.parametrize("integer", [torch.int32, torch.int64])
def test_the_fake_has_the_shape_and_dtype_of_the_real_one(integer):
    indices = torch.tensor([4, 0, 2], dtype=integer)
    torch.library.opcheck(torch.ops.ditto.last_tokens.default, (torch.randn(3, 5, 4), indices))
