"""What the GPU session decides without a GPU."""

from __future__ import annotations

import pytest

from ditto.runtime.tensorrt import padded_length


@pytest.mark.parametrize(
    ("length", "longest", "wanted"),
    [(1, 256, 64), (64, 256, 64), (65, 256, 128), (250, 256, 256), (250, 251, 251), (30, 32, 32)],
)
def test_prompts_are_padded_to_few_lengths_within_the_engines_limit(length, longest, wanted):
    assert padded_length(length, longest) == wanted
