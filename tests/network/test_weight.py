"""Constants by reference: what they fold to is what torch computes, and nothing else is accepted for them."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from ditto.errors import ShapeError
from ditto.network import Literals, Spec, resolve
from ditto.network.weight import FOLDABLE, Stored, fold, leaves, spec_of, stored_names
from tests.support.networks import InMemoryTensors

torch.manual_seed(0)
X, Y = torch.rand(2, 3, 4) + 0.5, torch.rand(2, 3, 4) + 0.5
HALF = torch.rand(3, 1).half()
ROWS = torch.tensor([2, 0, 2])
SMALL = torch.tensor([[-8, 7], [0, 1]], dtype=torch.int8)
HALVES = torch.tensor([[0.5], [0.5]])
WORDS = torch.tensor([[0x12], [0xF0]], dtype=torch.uint8)
SOURCE = InMemoryTensors(x=X, y=Y, half=HALF, rows=ROWS, words=WORDS, small=SMALL, halves=HALVES)


def stored(name: str) -> Stored:
    return Stored(name, tuple(SOURCE.tensors[name].shape), SOURCE.tensors[name].dtype)


x, y, half, rows, words, small, halves = map(stored, SOURCE.tensors)
FOLDS = [
    ("cast", (half, torch.float32), HALF.to(torch.float32)),
    ("reshape", (x, (6, 4)), X.flatten(0, 1)),
    ("permute", (x, (2, 0, 1)), X.movedim(2, 0)),
    ("expand", (half, (2, 3, 4)), HALF.repeat(2, 1, 4)),
    ("slice", (x, 2, 1, 4, 2), X[:, :, 1:4:2]),
    ("concatenate", ((x, y), 1), torch.stack((X, Y), 1).flatten(1, 2)),
    ("rows", (half, rows), torch.index_select(HALF, 0, ROWS)),
    ("add", (x, y), torch.add(X, Y)),
    ("add", (half, 1), HALF + 1.0),
    ("subtract", (x, y), torch.sub(X, Y)),
    ("multiply", (x, half), torch.mul(X, HALF)),
    ("divide", (x, y), torch.div(X, Y)),
    ("divide", (rows, 2), torch.tensor([1.0, 0.0, 1.0])),
    ("negate", (half,), torch.neg(HALF)),
    ("exponential", (x,), torch.exp(X)),
    ("square_root", (x,), torch.sqrt(X)),
    ("int4", (small,), SMALL.view(torch.int4)),
    ("group_scales", (small, 4, 2, torch.float16), torch.tensor([[1.0], [1 / 7]]).half()),
    ("rounded", (small, halves, 4), torch.tensor([[-8, 7], [0, 2]], dtype=torch.int8)),
    ("unpack", (words, 4, (1, 0)), torch.tensor([[-7, -6], [7, -8]], dtype=torch.int8)),
    ("unpack_halves", (words,), torch.tensor([[-6, -7], [-8, 7]], dtype=torch.int8)),
    ("reinterpret", (words, torch.int8), torch.tensor([[0x12], [0xF0 - 256]], dtype=torch.int8)),
    ("unpack_signed", (words,), torch.tensor([[2, 1], [0, -1]], dtype=torch.int8)),
    ("unpack_e2m1", (words,), torch.tensor([[1.0, 0.5], [0.0, -6.0]]).to(torch.float8_e4m3fn)),
]


@pytest.mark.parametrize(("op", "operands", "wanted"), FOLDS)
def test_a_folded_weight_is_what_torch_computes(op, operands, wanted):
    weight = fold(op, *operands)
    found = resolve(weight, SOURCE, Literals())
    assert spec_of(weight) == Spec.of(found) == Spec.of(wanted)
    assert found.is_contiguous()
    if found.dtype == torch.int4:  # torch only views it
        found, wanted = found.view(torch.int8), wanted.view(torch.int8)
    assert_close(found, wanted, rtol=0, atol=0)


def test_every_foldable_operator_is_tried():
    assert {op for op, _, _ in FOLDS} == set(FOLDABLE)


def test_folds_nest_and_mix_with_literals():
    literals = Literals()
    two = literals.keep(torch.full((1, 4), 2.0))
    weight = fold("multiply", fold("reshape", fold("concatenate", (x, fold("negate", y)), 0), (12, 4)), two)
    assert_close(resolve(weight, SOURCE, literals), torch.cat((X, -Y)).reshape(12, 4) * 2)
    assert leaves(weight) == (x, y, two)
    assert stored_names(weight) == {"x", "y"}
    assert str(weight) == f"multiply(reshape(concatenate([x, negate(y)], 0), [12, 4]), literal {two.digest[:8]})"


def test_folding_reads_no_tensor():
    source = InMemoryTensors(x=X)
    weight = fold("exponential", fold("cast", x, torch.float16))
    assert (source.asked, str(weight)) == ([], "exponential(cast(x, float16))")
    resolve(weight, source, Literals())
    assert source.asked == ["x"]


@pytest.mark.parametrize(
    ("described", "message"),
    [
        (Stored("x", (2, 12), torch.float32), "float32[2, 12]"),
        (Stored("x", (2, 3, 4), torch.float16), "float16[2, 3, 4]"),
    ],
)
def test_a_checkpoint_that_changed_is_refused(described, message):
    with pytest.raises(ShapeError) as error:
        resolve(fold("negate", described), SOURCE, Literals())
    assert str(error.value) == (
        f"checkpoint tensor `x` is float32[2, 3, 4], the network was described with {message}\n"
        "hint: build the engines again from this checkpoint"
    )


def test_equal_literals_are_kept_once():
    literals = Literals()
    tensor = torch.rand(2, 3)
    kept = literals.keep(tensor)
    assert literals.keep(tensor.t().contiguous().t()) == kept
    assert list(literals.tensors) == [kept.digest]
    assert_close(resolve(kept, SOURCE, literals), tensor, rtol=0, atol=0)


@pytest.mark.parametrize(
    "other", [torch.zeros(2, 2), torch.zeros(4, dtype=torch.int32), torch.tensor([0, 0, 0, 1.0]), torch.zeros(0)]
)
def test_literals_of_other_content_shape_or_dtype_are_other_literals(other):
    literals = Literals()
    assert literals.keep(torch.zeros(4)) != literals.keep(other)
    assert len(literals.tensors) == 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.bool, torch.int64])
def test_a_literal_does_not_change_with_the_tensor_it_was_made_from(dtype):
    literals, tensor = Literals(), torch.zeros(3).to(dtype)
    kept = literals.keep(tensor)
    tensor.fill_(1)
    assert_close(resolve(kept, SOURCE, literals), torch.zeros(3).to(dtype))


@pytest.mark.parametrize(
    ("weight", "view"),
    [
        (x, True),
        (fold("reshape", fold("reshape", x, (6, 4)), (24,)), True),
        (fold("permute", x, (2, 1, 0)), False),
        (fold("reshape", fold("permute", x, (2, 1, 0)), (24,)), False),
        (Literals().keep(X), False),
    ],
)
def test_only_reshapes_of_stored_tensors_need_no_new_memory(weight, view):
    literals = Literals()
    literals.keep(X)
    assert weight.is_view == view
    assert (resolve(weight, SOURCE, literals).data_ptr() == X.data_ptr()) == view


@pytest.mark.parametrize(
    "weight",
    [
        fold("concatenate", (x, fold("multiply", x, 2.0)), 1),
        fold("permute", x, (2, 1, 0)),
        fold("cast", x, torch.float16),
    ],
)
def test_what_is_computed_lies_where_there_is_room(weight):
    made = []

    def room(shape, dtype):
        made.append(torch.empty(shape, dtype=dtype))
        return made[-1]

    found = resolve(weight, SOURCE, Literals(), room)
    assert found.data_ptr() == made[0].data_ptr() and len(made) == 1
    assert torch.equal(found, resolve(weight, SOURCE, Literals()))
    assert found.is_contiguous()
