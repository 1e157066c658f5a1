"""Spooled tensors are on disk and keep their numbers."""

from __future__ import annotations

import pytest
import torch

from ditto.checkpoint.mapped import Spool


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int64, torch.bool])
def test_spooled_tensors_keep_their_numbers(tmp_path, dtype):
    torch.manual_seed(0)
    tensors = [torch.randn(3, size).mul(3).to(dtype) for size in (1, 700, 5000)]
    spool = Spool(tmp_path)
    kept = [spool.empty(tensor.shape, dtype).copy_(tensor) for tensor in tensors]
    spool.release()
    for tensor, found in zip(tensors, kept, strict=True):
        assert torch.equal(tensor, found)


def test_the_file_has_no_name(tmp_path):
    spool = Spool(tmp_path)
    spool.empty((10,), torch.float32).fill_(1)
    assert list(tmp_path.iterdir()) == []
