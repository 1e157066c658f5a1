"""A type hint is a shape with dynamic dimensions and a dtype."""

from __future__ import annotations

import pytest
import torch

from ditto.arguments import DynamicDimension, TensorTypeHint
from ditto.errors import ConfigError

BATCH = DynamicDimension("batch", 1, 2, 4)


def test_dynamic_dimensions_are_known_by_axis():
    assert TensorTypeHint(shape=[BATCH, 3, 8], dtype=torch.float16).dynamic == {0: BATCH}


def test_a_sample_has_no_dynamic_size_of_one():
    wide = DynamicDimension("wide", 5, 6, 7)
    single = DynamicDimension("single", 1, 1, 1)
    assert TensorTypeHint((BATCH, wide, single, 3), torch.float32).sample_shape() == (2, 5, 2, 3)


@pytest.mark.parametrize("size", [0, -1, 1.5, "batch", None])
def test_a_size_that_is_none_is_refused(size):
    with pytest.raises(ConfigError, match="axis 1 of a tensor type hint"):
        TensorTypeHint((BATCH, size), torch.float32)


def test_a_dtype_by_name_is_refused():
    with pytest.raises(ConfigError, match="'float16' is not a torch dtype"):
        TensorTypeHint((BATCH,), "float16")
