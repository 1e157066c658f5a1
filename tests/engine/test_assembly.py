"""Assemblies that cannot be are refused."""

from __future__ import annotations

import pytest

from ditto.engine import Assembly
from ditto.errors import ConfigError


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tile": 0}, "tiles of 0 pixels"),
        ({"side": 0}, "0 embeddings"),
        ({"shrink_above": 0}, "cannot be assembled"),
        ({"sizes": []}, "for 0 sizes"),
        ({"sizes": [[28, 40]]}, r"do not fill an image of \[28, 40\]"),
        ({"sizes": [[28, 28, 28]]}, "do not fill"),
        ({"sizes": [[0, 28]]}, "do not fill"),
    ],
)
def test_values_are_checked(values, message):
    with pytest.raises(ConfigError, match=message):
        Assembly(**{"tile": 28, "side": 4, "sizes": [[28, 56]], **values})


def test_too_few_tiles_are_refused():
    assembly = Assembly(tile=28, side=4, sizes=[[28, 56], [56, 56]])
    assert assembly.most_rows(3) == 16 + 4 * 9
    with pytest.raises(ConfigError, match="2 tiles per image are too few: .* at least 3"):
        assembly.most_rows(2)
