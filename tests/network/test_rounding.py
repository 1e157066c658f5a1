"""Rounding to integers against a search over many scales, and number by number."""

from __future__ import annotations

import pytest
import torch

from ditto.network import rounding
from ditto.network.rounding import group_scales, rounded

torch.manual_seed(0)
WEIGHT = torch.distributions.StudentT(5.0).sample((24, 256))


def errors(weight, scales, bits):
    """Square errors of each group, [rows, groups]."""
    groups = weight.double().unflatten(1, (scales.shape[1], -1))
    half = 2 ** (bits - 1)
    steps = scales.double()[..., None]
    return (((groups / steps).round().clamp(-half, half - 1) * steps - groups) ** 2).sum(-1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("bits", [4, 8])
def test_integers_are_the_nearest(bits, dtype):
    scales = (torch.rand(24, 4) / 10 + 0.01).to(dtype)
    found, half = rounded(WEIGHT.to(dtype), scales, bits), 2 ** (bits - 1)
    assert found.dtype == torch.int8
    for row in range(0, 24, 5):
        for column in range(256):
            quotient = float(WEIGHT.to(dtype)[row, column]) / float(scales[row, column // 64])
            nearest = min(max(quotient, -half), half - 1)
            assert abs(int(found[row, column]) - nearest) <= 0.5 + 1e-4


@pytest.mark.parametrize(("bits", "size", "most"), [(4, 64, 1.05), (4, 128, 1.05), (8, 256, 1.1)])
def test_scales_are_near_the_best_of_many(bits, size, most):
    scales = group_scales(WEIGHT, bits, size, torch.float32)
    widest = WEIGHT.unflatten(1, (-1, size)).abs().amax(-1) / (2 ** (bits - 1) - 1)
    best = torch.stack([errors(WEIGHT, widest * step / 200, bits) for step in range(60, 201)]).amin(0)
    assert errors(WEIGHT, scales, bits).sum() < most * best.sum()
    assert (errors(WEIGHT, scales, bits) <= errors(WEIGHT, widest, bits) * (1 + 1e-5)).all()


def test_scales_have_the_dtype_that_engines_compute_in():
    assert group_scales(WEIGHT.half(), 4, 64, torch.bfloat16).dtype == torch.bfloat16


def test_zeros_stay_zeros():
    weight = torch.cat([torch.zeros(1, 64), torch.ones(1, 64)])
    scales = group_scales(weight, 4, 32, torch.float16)
    assert not scales[0].any() and not rounded(weight, scales, 4)[0].any()
    assert torch.equal(rounded(weight, scales, 4)[1] * scales[1, 0], torch.ones(64).half())


@pytest.mark.parametrize("bits", [4, 8])
def test_parts_of_a_matrix_do_not_matter(monkeypatch, bits):
    whole = group_scales(WEIGHT, bits, 64, torch.float32), rounded(WEIGHT, torch.full((24, 4), 0.3), bits)
    monkeypatch.setattr(rounding, "_CHUNK", 5 * 256)
    parts = group_scales(WEIGHT, bits, 64, torch.float32), rounded(WEIGHT, torch.full((24, 4), 0.3), bits)
    assert all(torch.equal(one, other) for one, other in zip(whole, parts))
