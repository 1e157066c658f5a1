"""Gather against indexing, one row at a time."""

from __future__ import annotations

import pytest
import torch

from ditto.network.layers import Gather, GatherElements
from tests.support.layers import FLOATS, check_layer
from tests.support.networks import refusal


def indices_of(shape, dtype=torch.int64):
    return torch.randint(0, 3, shape).to(dtype)


@pytest.mark.parametrize("dtype", [*FLOATS, torch.int64, torch.bool])
@pytest.mark.parametrize("index", [torch.int32, torch.int64])
@pytest.mark.parametrize("shape", [(), (5,), (2, 4)])
@pytest.mark.parametrize("axis", [0, 1])
def test_slices_are_taken_along_the_axis(axis, shape, index, dtype):
    x, indices = (torch.randn(3, 3, 2) * 2).to(dtype), indices_of(shape, index)
    wanted = x[indices.long()] if axis == 0 else x[:, indices.long()]
    check_layer(Gather(axis), [x, indices], wanted, dynamic={2: "width"})


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("shape", [(2,), (2, 4)])
def test_each_row_of_a_batch_has_its_own_indices(shape, axis, dtype):
    x, indices = torch.randn(2, 3, 3).to(dtype), indices_of(shape)
    wanted = torch.stack([x[row, index] if axis == 1 else x[row, :, index] for row, index in enumerate(indices)])
    check_layer(Gather(axis, batch_axes=1), [x, indices], wanted)


@pytest.mark.parametrize(
    ("layer", "specs", "message"),
    [
        (Gather(0), ["float32[3, 2]", "float32[2]"], "needs an integer dtype, got float32[2]"),
        (Gather(0), ["float32[3, 2]", "int8[2]"], "needs an integer dtype, got int8[2]"),
        (Gather(2), ["float32[3, 2]", "int32[2]"], "axis 2 with 0 batch axes does not fit float32[3, 2]"),
        (Gather(-1), ["float32[3, 2]", "int32[2]"], "axis -1 with 0 batch axes does not fit float32[3, 2]"),
        (Gather(0, 1), ["float32[3, 2]", "int32[3]"], "axis 0 with 1 batch axes does not fit float32[3, 2]"),
        (Gather(2, 2), ["float32[3, 2, 4]", "int32[3, 2]"], "axis 2 with 2 batch axes does not fit float32[3, 2, 4]"),
        (Gather(1, 1), ["float32[3, 2]", "int32[2]"], "float32[3, 2] and int32[2] differ in their first 1 axes"),
    ],
)
def test_gather_refuses_what_does_not_fit(layer, specs, message):
    assert refusal(layer, *specs) == message


@pytest.mark.parametrize("dtype", [*FLOATS, torch.int64])
@pytest.mark.parametrize("index", [torch.int32, torch.int64])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_elements_are_taken_at_their_own_indices(axis, index, dtype):
    x = (torch.randn(3, 3, 3) * 2).to(dtype)
    shape = [3, 3, 3]
    shape[axis] = 2
    indices = indices_of(shape, index)
    wanted = torch.empty(shape, dtype=dtype)
    for place in torch.cartesian_prod(*map(torch.arange, shape)).tolist():
        source = list(place)
        source[axis] = int(indices[tuple(place)])
        wanted[tuple(place)] = x[tuple(source)]
    check_layer(GatherElements(axis), [x, indices], wanted)


@pytest.mark.parametrize(
    ("layer", "specs", "message"),
    [
        (GatherElements(0), ["float32[3, 2]", "float32[3, 2]"], "needs an integer dtype, got float32[3, 2]"),
        (GatherElements(2), ["float32[3, 2]", "int32[3, 2]"], "axis 2 does not fit float32[3, 2] and int32[3, 2]"),
        (GatherElements(1), ["float32[3, 2]", "int32[3]"], "axis 1 does not fit float32[3, 2] and int32[3]"),
        (
            GatherElements(1),
            ["float32[3, 2]", "int32[2, 2]"],
            "float32[3, 2] and int32[2, 2] differ in an axis other than 1",
        ),
    ],
)
def test_gathering_elements_refuses_what_does_not_fit(layer, specs, message):
    assert refusal(layer, *specs) == message
