"""Tolerances for differences from PyTorch, by dtype."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

# rtol, atol for torch.testing.assert_close on a single operation.
TOLERANCE: Mapping[torch.dtype, Mapping[str, float]] = {
    # Different summation order: a few units in the last place of values near 1.
    torch.float32: {"rtol": 1e-5, "atol": 1e-5},
    # 10-bit fraction; softmax and norms round once more than PyTorch's fused kernels.
    torch.float16: {"rtol": 2e-3, "atol": 2e-3},
    # 7-bit fraction.
    torch.bfloat16: {"rtol": 1.6e-2, "atol": 1.6e-2},
    torch.int64: {"rtol": 0, "atol": 0},
    torch.int32: {"rtol": 0, "atol": 0},
    torch.bool: {"rtol": 0, "atol": 0},
}

# Largest relative error (Frobenius norm) of image features and logits against Hugging Face in float32.
RELATIVE_ERROR: Mapping[torch.dtype, float] = {
    torch.float32: 1e-5,
    torch.float16: 2e-3,
    torch.bfloat16: 1.6e-2,
}

# The same where float32 operands of products are rounded to TF32, which has float16's 10-bit fraction.
TF32_RELATIVE_ERROR = 2e-3


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """|found - wanted| / |wanted| in the Frobenius norm, computed in float64."""
    found, wanted = found.detach().double(), wanted.detach().double()
    return float((found - wanted).norm() / wanted.norm().clamp_min(1e-300))


def severity(error: float) -> float:
    """Sort key of errors; NaN is the worst."""
    return math.inf if math.isnan(error) else error
