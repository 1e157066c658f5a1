"""Quantised weights are their formula, whole, in parts and joined; what does not stay quantised stays right."""

from __future__ import annotations

import pytest
import torch
from attrs import evolve
from torch.testing import assert_close

from ditto.network import Literals, resolve
from ditto.network.quantized import QuantizedWeight, has_quantized, quantized_form
from ditto.network.weight import Stored, fold, stored_names
from tests.support.networks import InMemoryTensors

SOURCE = InMemoryTensors()


def matrix(
    name,
    rows=6,
    columns=8,
    block=(1, 4),
    bits=4,
    zeros=True,
    groups=False,
    dtype=torch.float32,
    kind=None,
    offsets=False,
):
    """A quantised weight of random numbers, and what it means: every number on its own, in float64."""
    torch.manual_seed(len(SOURCE.tensors))
    shape = -(-rows // block[0]), -(-columns // block[1])
    tensors = {
        "values": torch.randint(-8, 8, (rows, columns), dtype=torch.int8).to(kind or torch.int8),
        "scales": torch.rand(shape).to(torch.bfloat16),
        "zeros": torch.randint(-8, 8, shape, dtype=torch.int8) if zeros else None,
        "groups": torch.randperm(columns) // block[1] if groups else None,
        "offsets": torch.randint(-8, 8, shape).half() / 4 if offsets else None,
    }
    parts = {}
    for part, tensor in tensors.items():
        if tensor is not None:
            SOURCE.tensors[f"{name}.{part}"] = tensor
            parts[part] = Stored(f"{name}.{part}", tuple(tensor.shape), tensor.dtype)
    weight = QuantizedWeight(
        parts["values"],
        parts["scales"],
        parts.get("zeros"),
        bits,
        block,
        parts.get("groups"),
        (rows, columns),
        dtype,
        parts.get("offsets"),
    )
    wanted = torch.empty(rows, columns, dtype=torch.float64)
    for row in range(rows):
        for column in range(columns):
            group = int(tensors["groups"][column]) if groups else column // block[1]
            place = row // block[0], group
            zero = float(tensors["zeros"][place]) if zeros else 0.0
            offset = float(tensors["offsets"][place]) if offsets else 0.0
            scaled = (float(tensors["values"][row, column]) - zero) * float(tensors["scales"][place])
            wanted[row, column] = scaled + offset
    return weight, wanted


def resolved(weight):
    return resolve(weight, SOURCE, Literals())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"zeros": False},
        {"block": (1, 8)},
        {"block": (6, 8)},
        {"block": (2, 4)},
        {"block": (4, 3)},  # cut off at both ends
        {"groups": True},
        {"offsets": True},
        {"offsets": True, "zeros": False, "block": (4, 3)},
        {"zeros": False, "block": (2, 4), "kind": torch.float8_e4m3fn, "bits": 8},
    ],
    ids=str,
)
def test_its_values_are_the_formula_rounded_once(given, dtype):
    weight, wanted = matrix(f"formula {given}", dtype=dtype, **given)
    assert_close(resolved(weight), wanted.to(dtype), rtol=0, atol=0)


def test_it_knows_its_tensors():
    weight, _ = matrix("known", groups=True)
    assert stored_names(weight) == {"known.values", "known.scales", "known.zeros", "known.groups"}
    assert str(weight) == "dequantize(known.values, known.scales, known.zeros, known.groups)"
    assert not weight.is_view


@pytest.mark.parametrize(
    "given", [{}, {"zeros": False}, {"block": (2, 4)}, {"block": (6, 8)}, {"block": (6, 8), "offsets": True}], ids=str
)
def test_joined_matrices_are_one(given):
    (one, first), (two, second) = (matrix(f"{name} {given}", **given) for name in ("one", "two"))
    joined = fold("concatenate", (one, two), 0)
    form = quantized_form(fold("cast", joined, torch.float16))
    assert form is not None and (form.shape, form.dtype) == ((12, 8), torch.float16)
    assert_close(resolved(form), torch.cat([first, second]).half(), rtol=0, atol=0)
    assert_close(resolved(joined), torch.cat([first, second]).float(), rtol=0, atol=0)


def test_a_matrix_with_one_scale_joins_another_of_other_height():
    (one, first), (two, second) = matrix("high", block=(6, 8)), matrix("low", rows=4, block=(4, 8))
    form = quantized_form(fold("concatenate", (one, two), 0))
    assert form is not None and form.block == (1, 8)
    assert_close(resolved(form), torch.cat([first, second]).float(), rtol=0, atol=0)


@pytest.mark.parametrize(
    "given",
    [{"bits": 8}, {"block": (1, 8)}, {"zeros": False}, {"groups": True}, {"dtype": torch.float16}, {"offsets": True}],
    ids=str,
)
def test_matrices_that_differ_in_form_are_not_one(given):
    one, two = matrix("plain")[0], matrix(f"other {given}", **given)[0]
    assert quantized_form(fold("concatenate", (one, two), 0)) is None


def test_matrices_with_cut_blocks_are_not_one():
    one = matrix("cut", block=(4, 4))[0]
    assert quantized_form(fold("concatenate", (one, one), 0)) is None


def test_a_float_part_makes_the_whole_float():
    one = matrix("quantised part")[0]
    SOURCE.tensors["float"] = torch.rand(2, 8)
    whole = fold("concatenate", (one, Stored("float", (2, 8), torch.float32)), 0)
    assert quantized_form(whole) is None
    assert has_quantized(whole) and not has_quantized(whole.parts[1])


@pytest.mark.parametrize(("block", "start", "stop"), [((1, 4), 1, 4), ((2, 4), 2, 6), ((4, 4), 4, 6), ((6, 8), 3, 5)])
def test_rows_stay_quantised(block, start, stop):
    weight, wanted = matrix(f"rows {block}", block=block, offsets=True)
    form = quantized_form(fold("slice", weight, 0, start, stop, 1))
    assert form is not None
    assert_close(resolved(form), wanted[start:stop].float(), rtol=0, atol=0)


@pytest.mark.parametrize("operands", [(0, 1, 4, 1), (0, 0, 3, 1), (0, 0, 6, 2), (1, 0, 4, 1)])
def test_other_slices_do_not(operands):
    weight, wanted = matrix(f"slices {operands}", block=(2, 4))
    part = fold("slice", weight, *operands)
    axis, start, stop, step = operands
    cut = (slice(start, stop, step), slice(None)) if axis == 0 else (slice(None), slice(start, stop, step))
    assert quantized_form(part) is None
    assert_close(resolved(part), wanted[cut].float(), rtol=0, atol=0)


def test_sums_and_integers_are_not_quantised():
    weight = matrix("sum")[0]
    assert quantized_form(fold("add", weight, 1)) is None
    assert quantized_form(fold("cast", weight, torch.int32)) is None
    assert quantized_form(weight.values) is None
    assert quantized_form(evolve(weight, dtype=torch.float16)) is not None
