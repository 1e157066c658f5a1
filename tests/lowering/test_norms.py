"""Norms compute what PyTorch computes; the root-mean-square norm rounds where its operator rounds."""

from __future__ import annotations

import pytest
import torch

from tests.support.layers import FLOATS
from tests.support.lowering import Row, check_every_lowering_has_rows, check_rows, rows

aten = torch.ops.aten

X = torch.randn(3, 2, 8, generator=torch.Generator().manual_seed(0))
WEIGHT, BIAS = torch.linspace(-1, 2, 8), torch.linspace(1, -1, 8)
CHANNELS = torch.randn(3, 8, 2, 5, generator=torch.Generator().manual_seed(1))
SPREAD = torch.linspace(0.5, 3, 8)

ROWS = {
    aten.layer_norm.default: [
        *(Row(X.to(dtype), [8], WEIGHT.to(dtype), BIAS.to(dtype), 1e-3) for dtype in FLOATS),
        Row(X, [8]),
        Row(X, [8], WEIGHT, None),
        Row(X, [8], None, BIAS),
        Row(X, [2, 8], torch.stack((WEIGHT, BIAS)), torch.stack((BIAS, WEIGHT))),
        Row(X, [8], WEIGHT, BIAS, 1e-5, False),
    ],
    aten.batch_norm.default: [
        *(
            Row(CHANNELS.to(dtype), *(part.to(dtype) for part in (WEIGHT, BIAS, BIAS, SPREAD)), False, 0.1, 1e-3, True)
            for dtype in FLOATS
        ),
        Row(CHANNELS, None, None, BIAS, SPREAD, False, 0.1, 1e-5, False),
        Row(CHANNELS, WEIGHT, None, BIAS, SPREAD, False, 0.1, 1e-5, False),
        Row(CHANNELS[..., 0, 0], WEIGHT, BIAS, BIAS, SPREAD, False, 0.1, 1e-5, False),
    ],
    aten.rms_norm.default: [
        Row(X, [8], WEIGHT, 1e-3),
        Row(X, [8], None, 1e-3),
        Row(X, [8]),
        Row(X[:, 0], [8], WEIGHT, 1e-6),
    ],
    torch.ops.ditto.rms_norm.default: [
        *(Row(X.to(dtype), WEIGHT.to(dtype), 1e-3) for dtype in FLOATS),
        *(Row(X.to(dtype), WEIGHT, 1e-3) for dtype in FLOATS),
        Row(X[:, None].half(), WEIGHT.half(), 1e-6),
        Row(X[:, 0], WEIGHT, 1e-6),
    ],
}


def test_every_lowering_of_the_module_has_rows():
    check_every_lowering_has_rows(ROWS, "norms")


@pytest.mark.parametrize(("operator", "calls"), rows(ROWS))
def test_norms_compute_what_torch_computes(operator, calls):
    check_rows(operator, calls)
