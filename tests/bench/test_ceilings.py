"""Ceilings are rates of this device, and a floor is the slower of moving and computing."""

from __future__ import annotations

import pytest
import torch

from ditto.bench.ceilings import Ceilings, measure


def test_rates_are_those_of_a_computer():
    found = measure(torch.device("cpu"), torch.float16)
    assert 1e8 < found.bytes_per_s < 1e13
    assert 1e8 < found.flops_per_s < 1e16


def test_a_floor_is_the_slower_of_moving_and_computing():
    ceilings = Ceilings(bytes_per_s=1e9, flops_per_s=1e12)
    assert ceilings.milliseconds(2e9, 1e12) == pytest.approx(2000)
    assert ceilings.milliseconds(2e9, 3e12) == pytest.approx(3000)
