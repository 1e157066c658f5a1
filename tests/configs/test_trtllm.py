"""Choices for TensorRT-LLM check themselves."""

from __future__ import annotations

import pytest

from ditto.configs import TrtllmConfig
from ditto.errors import ConfigError


@pytest.mark.parametrize("size", [16, 32, 64, 128])
def test_blocks_hold_a_power_of_two_of_tokens(size):
    assert TrtllmConfig(tokens_per_block=size).tokens_per_block == size


@pytest.mark.parametrize("size", [0, -16, 24])
def test_other_sizes_are_refused(size):
    with pytest.raises(ConfigError, match=f"tokens_per_block is {size}"):
        TrtllmConfig(tokens_per_block=size)
