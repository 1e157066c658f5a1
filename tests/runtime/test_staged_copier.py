"""Uploads keep the numbers, whatever their size and whoever reuses the memory they came from."""

from __future__ import annotations

import pytest
import torch

from ditto.runtime import staged_copier
from ditto.runtime.staged_copier import StagedCopier

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU to copy to")


@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (100, 64), (1025, 7)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int32])
def test_numbers_arrive(monkeypatch, shape, dtype):
    monkeypatch.setattr(staged_copier, "_BUFFER_BYTES", 1000)  # most take several buffers
    copy = StagedCopier(torch.device("cuda"))
    tensors = [torch.randn(shape).mul(50).to(dtype) for _ in range(5)]
    kept = [tensor.clone() for tensor in tensors]
    made = [copy(tensor) for tensor in tensors]
    for tensor in tensors:
        tensor.zero_()
    assert all(torch.equal(found.cpu(), wanted) for found, wanted in zip(made, kept, strict=True))


def test_a_transposed_tensor_arrives_in_its_own_order():
    tensor = torch.arange(6.0).reshape(2, 3).T
    assert torch.equal(StagedCopier(torch.device("cuda"))(tensor).cpu(), tensor)
