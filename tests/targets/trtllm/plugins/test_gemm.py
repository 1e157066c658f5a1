"""Gemm multiplies by the transpose of a weight; its fields are the contract's (LLM 3.2)."""

from __future__ import annotations

import pytest
import torch

from ditto.errors import ShapeError
from ditto.network import Spec, symbol
from ditto.targets.trtllm.plugins import Gemm

FLOATS = (torch.float32, torch.float16, torch.bfloat16)


@pytest.mark.parametrize("dtype", FLOATS)
def test_it_is_a_linear_layer(dtype):
    x, weight = torch.randn(5, 4).to(dtype), torch.randn(6, 4).to(dtype)
    found = Gemm(dtype=dtype).reference(x, weight)
    assert torch.equal(found, torch.nn.functional.linear(x, weight))
    tokens = Spec((symbol("tokens"), 4), dtype)
    assert Gemm(dtype=dtype).infer(tokens, Spec.of(weight)) == Spec((symbol("tokens"), 6), dtype)


@pytest.mark.parametrize(("dtype", "number"), zip(FLOATS, (0, 1, 7), strict=True))
def test_fields(dtype, number):
    found = {field.name: (field.type, field.values) for field in Gemm(dtype=dtype).fields()}
    zero = ("int32", (0,))
    assert found == {
        "transa": zero,
        "transb": ("int32", (1,)),
        "pad_lda": zero,
        "pad_ldb": zero,
        "pad_ldc": zero,
        "type_id": ("int32", (number,)),
        "use_fp8": zero,
        "alpha": ("float32", (1.0,)),
    }


@pytest.mark.parametrize(
    ("x", "weight", "message"),
    [
        (Spec((5, 4), torch.float16), Spec((6, 3), torch.float16), "inner sizes"),
        (Spec((5, 4), torch.float32), Spec((6, 4), torch.float32), "Gemm computes in"),
        (Spec((5, 4), torch.float16), Spec((6, 4), torch.float32), "needs equal dtypes"),
        (Spec((1, 5, 4), torch.float16), Spec((6, 4), torch.float16), "needs rank 2"),
        (Spec((5, 4), torch.int32), Spec((6, 4), torch.int32), "needs a floating dtype"),
    ],
)
def test_what_does_not_fit_is_refused(x, weight, message):
    with pytest.raises(ShapeError, match=message):
        Gemm(dtype=torch.float16).infer(x, weight)
