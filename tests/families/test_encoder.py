"""Sizes of encoders' inputs."""

from __future__ import annotations

import pytest

from ditto.errors import CheckpointError
from ditto.families.encoder import pair, tile


def test_tiles_have_a_dynamic_number_and_a_fixed_size():
    hint = tile(3, 28, 42)
    assert hint.shape[1:] == (3, 28, 42)
    assert [size.name for size in hint.dynamic.values()] == ["batch"]


def test_a_size_is_one_number_or_two():
    assert pair("image_size", 28) == (28, 28)
    assert pair("image_size", [28, 42]) == (28, 42)
    with pytest.raises(CheckpointError, match=r"`vision_config.image_size` is \[1, 2, 3\]"):
        pair("image_size", [1, 2, 3])
