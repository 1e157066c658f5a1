"""The norm operator is every model's RMS norm, whichever side of the rounding its weight is on."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from ditto import ops
from ditto.reference import TOLERANCE

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
EPSILON = 1e-3


def _operands(dtype):
    generator = torch.Generator().manual_seed(0)
    return (0.1 * torch.randn(2, 3, 16, generator=generator)).to(dtype), torch.randn(16, generator=generator).to(dtype)


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_weight_of_the_inputs_dtype_makes_it_llamas_norm(dtype):
    x, weight = _operands(dtype)
    theirs = LlamaRMSNorm(16, EPSILON).to(dtype)
    theirs.weight.data.copy_(weight)
    found = ops.rms_norm(x, weight, EPSILON)
    assert torch.equal(found, theirs(x).detach())
    assert_close(found, torch.nn.functional.rms_norm(x, (16,), weight, EPSILON), **TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_float32_weight_makes_it_gemmas_norm(dtype):
    x, weight = _operands(dtype)
    theirs = Gemma2RMSNorm(16, EPSILON).to(dtype)
    theirs.weight.data.copy_(weight)
    found = ops.rms_norm(x, 1.0 + weight.float(), EPSILON)
    assert torch.equal(found, theirs(x).detach())


def test_the_side_of_the_rounding_matters():
    x, weight = _operands(torch.bfloat16)
    narrow, wide = (ops.rms_norm(x, w, EPSILON) for w in (weight, weight.float()))
    assert narrow.dtype == wide.dtype == torch.bfloat16
    assert not torch.equal(narrow, wide)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("weight_dtype", FLOATS)
def test_the_fake_has_the_shape_and_dtype_of_the_real_one(dtype, weight_dtype):
    x, weight = _operands(dtype)
    torch.library.opcheck(torch.ops.ditto.rms_norm.default, (x, weight.to(weight_dtype), EPSILON))
    torch.library.opcheck(torch.ops.ditto.rms_norm.default, (x[0, 0], weight.to(weight_dtype), EPSILON))
