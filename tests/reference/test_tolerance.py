"""Tolerances are those of the dtypes' own precision, and the relative error is a ratio of norms."""

from __future__ import annotations

import math

import pytest
import torch

from ditto.network.spec import FLOATING
from ditto.reference import RELATIVE_ERROR, TOLERANCE, relative_error


@pytest.mark.parametrize("dtype", FLOATING)
def test_a_tolerance_is_a_few_units_in_the_last_place(dtype):
    unit = torch.finfo(dtype).eps
    for bound in (*TOLERANCE[dtype].values(), RELATIVE_ERROR[dtype]):
        assert unit <= bound <= 100 * unit
    torch.testing.assert_close(torch.ones(1, dtype=dtype) + unit, torch.ones(1, dtype=dtype), **TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.bool])
def test_whole_numbers_are_exact(dtype):
    with pytest.raises(AssertionError):
        torch.testing.assert_close(torch.ones(2, dtype=dtype), torch.zeros(2, dtype=dtype), **TOLERANCE[dtype])
    assert dict(TOLERANCE[dtype]) == {"rtol": 0, "atol": 0}


def test_the_relative_error_is_a_ratio_of_norms():
    wanted = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    found = wanted + torch.tensor([[0.0, 0.3], [0.4, 0.0]])
    assert math.isclose(relative_error(found, wanted), 0.1, rel_tol=1e-6)
    assert relative_error(wanted, wanted) == 0


def test_the_relative_error_is_computed_in_float64():
    wanted = torch.full((4,), 60000.0).half()  # the sum of the squares is beyond float16
    assert relative_error(wanted, wanted.bfloat16()) == pytest.approx(
        abs(60000.0 - wanted.bfloat16()[0].item()) / wanted.bfloat16()[0].item()
    )


def test_nothing_wanted_and_nothing_found_is_no_error():
    assert relative_error(torch.zeros(3), torch.zeros(3)) == 0
    assert relative_error(torch.ones(3), torch.zeros(3)) > 1e100
