"""A dynamic dimension is a name and three sizes in order."""

from __future__ import annotations

import pytest

from ditto.arguments import DynamicDimension
from ditto.errors import ConfigError


def test_up_to_is_tuned_for_half_rounded_up():
    assert DynamicDimension.up_to("batch", 5) == DynamicDimension("batch", 1, 3, 5)
    assert DynamicDimension.up_to("batch", 1) == DynamicDimension("batch", 1, 1, 1)


@pytest.mark.parametrize("sizes", [(0, 1, 2), (2, 1, 3), (1, 4, 3), (1, 1, 0)])
def test_sizes_out_of_order_are_refused(sizes):
    with pytest.raises(ConfigError, match="needs 1 <= min <= opt <= max"):
        DynamicDimension("batch", *sizes)


def test_a_name_is_an_identifier():
    with pytest.raises(ConfigError, match="'my batch' is not an identifier"):
        DynamicDimension("my batch", 1, 1, 1)
