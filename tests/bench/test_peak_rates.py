"""Peak rates are those of this device; a roofline is the slower of moving and computing."""

from __future__ import annotations

import pytest
import torch

from ditto.bench.peak_rates import PeakRates, measure


def test_rates_are_those_of_a_computer():
    found = measure(torch.device("cpu"), torch.float16)
    assert 1e8 < found.bytes_per_s < 1e13
    assert 1e8 < found.flops_per_s < 1e16


def test_a_roofline_is_the_slower_of_moving_and_computing():
    rates = PeakRates(bytes_per_s=1e9, flops_per_s=1e12)
    assert rates.milliseconds(2e9, 1e12) == pytest.approx(2000)
    assert rates.milliseconds(2e9, 3e12) == pytest.approx(3000)
