"""Layers that move elements move them as numbered elements say, and shapes are tensors."""

from __future__ import annotations

import pytest
import torch

from ditto.network import Network
from ditto.network.dims import add, multiply
from ditto.network.layers import Concatenation, Constant, Fill, Gather, Shape, Shuffle, Slice
from ditto.network.layers.shape import reshape_form
from ditto.reference import Constants, run
from tests.support.layers import FLOATS, check_layer, emitted
from tests.support.networks import BATCH, SEQUENCE, refusal, spec

MOVED = [*FLOATS, torch.int64, torch.int32, torch.bool]


def numbered(*shape):
    """0, 1, 2, ... in a shape."""
    return torch.arange(torch.Size(shape).numel()).reshape(shape)


@pytest.mark.parametrize("dtype", MOVED)
@pytest.mark.parametrize(
    ("layer", "wanted"),
    [
        (Shuffle(), lambda x: x.clone()),
        (Shuffle(first=(2, 0, 1)), lambda x: torch.einsum("abc->cab", x)),
        (Shuffle(reshape=(6, 4)), lambda x: x.flatten(0, 1)),
        (Shuffle(reshape=(0, 3, 2, -1)), lambda x: x.unflatten(2, (2, 2))),
        (Shuffle(first=(2, 0, 1), reshape=(0, -1)), lambda x: x.movedim(2, 0).flatten(1)),
        (
            Shuffle((0, 2, 1), (0, 2, 2, 3), (0, 2, 3, 1)),
            lambda x: torch.einsum("abcd->acdb", x.mT.unflatten(1, (2, 2))),
        ),
        (Shuffle(first=(1, 0, 2), second=(0, 2, 1)), lambda x: torch.einsum("abc->bca", x)),
    ],
)
def test_shuffle_transposes_reshapes_and_transposes(layer, wanted, dtype):
    x = numbered(2, 3, 4).to(dtype)
    check_layer(layer, [x], wanted(x), dynamic=None if layer.reshape == (6, 4) else {0: "batch"})


@pytest.mark.parametrize(("shape", "reshape"), [((1,), ()), ((), (1,)), ((1, 1), ())])
def test_one_element_has_any_rank(shape, reshape):
    check_layer(Shuffle(reshape=reshape), [torch.ones(shape)], torch.ones(reshape))


def with_sizes(layer, x, sizes):
    """A network of one layer whose sizes are a product and a number, put together from x's shape: x [batch, n]."""
    network = Network("test")
    value = network.input("x", spec(x))
    whole = network.add(Shape(), value)
    batch = network.add(Gather(0), whole, network.add(Constant(network.literals.keep(torch.tensor([0])))))
    rest = network.add(Constant(network.literals.keep(torch.tensor(sizes))))
    network.output("result", network.add(layer, value, network.add(Concatenation(0), batch, rest)))
    emitted(network)
    return network


def test_sizes_with_several_names_come_as_an_input():
    layer = Shuffle(first=(1, 0), sizes=(BATCH, 2, 3), second=(2, 1, 0))
    network = with_sizes(layer, "float32[batch, 6]", [2, 3])
    x = numbered(4, 6).float()
    found = run(network, {"x": x}, Constants(network, None))["result"]
    assert torch.equal(found, torch.einsum("abc->cba", x.mT.reshape(4, 2, 3)))
    assert str(network.value(network.outputs["result"]).spec) == "float32[3, 2, batch]"


@pytest.mark.parametrize(("start", "stride", "columns"), [(1, 2, [1, 3, 5]), (5, -2, [5, 3, 1])])
def test_a_slice_of_named_size_takes_it_as_an_input(start, stride, columns):
    network = with_sizes(Slice((0, start), (BATCH, 3), (1, stride)), "float32[batch, 6]", [3])
    x = numbered(4, 6).float()
    assert torch.equal(run(network, {"x": x}, Constants(network, None))["result"], x[:, columns])
    assert str(network.value(network.outputs["result"]).spec) == "float32[batch, 3]"


@pytest.mark.parametrize("dtype", MOVED)
@pytest.mark.parametrize(
    ("start", "size", "stride", "rows", "columns"),
    [
        ((0, 0), (3, 5), (1, 1), [0, 1, 2], [0, 1, 2, 3, 4]),
        ((1, 2), (2, 3), (1, 1), [1, 2], [2, 3, 4]),
        ((0, 1), (2, 2), (2, 3), [0, 2], [1, 4]),
        ((2, 0), (4, 2), (0, 2), [2, 2, 2, 2], [0, 2]),
        ((0, 0), (0, 5), (2, 1), [], [0, 1, 2, 3, 4]),
        ((2, 4), (3, 2), (-1, -3), [2, 1, 0], [4, 1]),
    ],
)
def test_a_slice_is_a_strided_box(start, size, stride, rows, columns, dtype):
    x = numbered(3, 5).to(dtype)
    check_layer(Slice(start, size, stride), [x], x[rows][:, columns])


@pytest.mark.parametrize("dtype", MOVED)
@pytest.mark.parametrize("axis", [0, 1])
def test_parts_are_joined_in_order(axis, dtype):
    x = numbered(3, 4).to(dtype)
    parts = x.tensor_split((1, 3), axis)
    check_layer(Concatenation(axis), parts, x, dynamic={axis: "first"})


def test_joined_named_sizes_add_up():
    made = Concatenation(1).infer(*map(spec, ["int64[batch, sequence]", "int64[batch, 2*sequence + 1]"]))
    assert made.shape == (BATCH, add(multiply(3, SEQUENCE), 1))


@pytest.mark.parametrize("dtype", MOVED)
@pytest.mark.parametrize("shape", [(2, 3, 4), (5,)])
def test_a_shape_is_a_tensor(shape, dtype):
    check_layer(Shape(), [torch.zeros(shape, dtype=dtype)], torch.tensor(list(shape)), dynamic={0: "batch"})


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize(("start", "step"), [(0, 1), (3, -2)])
def test_fill_counts(start, step, dtype):
    wanted = torch.tensor([start, start + step, start + 2 * step, start + 3 * step], dtype=dtype)
    check_layer(Fill(4, start, step, dtype), [torch.tensor([4])], wanted)


def test_a_named_length_comes_with_the_input():
    network = Network("test")
    network.output("result", network.add(Fill(BATCH, 1, 2, torch.int32), network.input("length", spec("int64[1]"))))
    found = run(network, {"length": torch.tensor([3])}, Constants(network, None))["result"]
    assert torch.equal(found, torch.tensor([1, 3, 5], dtype=torch.int32))
    emitted(network)


@pytest.mark.parametrize(
    ("before", "after", "form"),
    [
        ((BATCH, 6), (BATCH, 2, 3), (0, 2, 3)),
        ((BATCH, 6), (multiply(2, BATCH), 3), (-1, 3)),
        ((BATCH, SEQUENCE, 6), (BATCH, SEQUENCE, 2, 3), (0, 0, 2, 3)),
        ((BATCH, SEQUENCE), (1, BATCH, SEQUENCE), None),
        ((2, SEQUENCE), (1, 2, SEQUENCE), (1, 2, -1)),
        ((6, 4), (3, 8), (3, 8)),
    ],
)
def test_a_reshape_is_written_with_copies_and_one_inferred_size(before, after, form):
    assert reshape_form(before, after) == form
    if form is not None:
        assert Shuffle(reshape=form).infer(spec("float32[]").with_shape(before)).shape == after


SIZES_FIRST = "sizes come as a second input where `sizes` names them, and only then"
SIZES_NAMED = "slicing float32[2, 3] to named sizes needs them as an input, and only then"


@pytest.mark.parametrize(
    ("layer", "specs", "message"),
    [
        (Shuffle(first=(0, 0)), ["float32[2, 3]"], "(0, 0) is not a permutation of 2 axes"),
        (Shuffle(reshape=(3, 2), second=(0, 1, 2)), ["float32[2, 3]"], "(0, 1, 2) is not a permutation of 2 axes"),
        (Shuffle(reshape=(2, 2)), ["float32[2, 3]"], "cannot reshape float32[2, 3] to (2, 2)"),
        (Shuffle(reshape=(4, -1)), ["float32[2, 3]"], "cannot reshape float32[2, 3] to (4, -1)"),
        (Shuffle(reshape=(2, -1)), ["float32[batch, 3]"], "cannot reshape float32[batch, 3] to (2, -1)"),
        (Shuffle(reshape=(-1, -1)), ["float32[2, 3]"], "(-1, -1) leaves more than one size to be inferred"),
        (Shuffle(reshape=(2, 3, 0)), ["float32[2, 3]"], "(2, 3, 0) copies axis 2, which float32[2, 3] lacks"),
        (Shuffle(sizes=(BATCH, 3)), ["float32[batch, 3]"], SIZES_FIRST),
        (Shuffle(), ["float32[batch, 3]", "int64[2]"], SIZES_FIRST),
        (Shuffle(reshape=(3, -1), sizes=(3, BATCH)), ["float32[batch, 3]", "int64[2]"], SIZES_FIRST),
        (Shuffle(sizes=(BATCH, 3)), ["float32[batch, 3]", "int32[2]"], "needs the sizes as int64[2], got int32[2]"),
        (Shuffle(sizes=(BATCH, 3)), ["float32[batch, 3]", "int64[3]"], "needs the sizes as int64[2], got int64[3]"),
        (
            Shuffle(first=(1, 0), sizes=(BATCH, 2)),
            ["float32[batch, 3]", "int64[2]"],
            "cannot reshape float32[3, batch] to float32[batch, 2]",
        ),
        (
            Slice((0,), (2, 3), (1, 1)),
            ["float32[2, 3]"],
            "start, size and stride need one number per axis of float32[2, 3]",
        ),
        (Slice((0, 0), (BATCH, 3), (1, 1)), ["float32[2, 3]"], SIZES_NAMED),
        (Slice((0, 0), (2, 3), (1, 1)), ["float32[2, 3]", "int64[2]"], SIZES_NAMED),
        (Slice((0, 0), (BATCH, 3), (1, 1)), ["float32[2, 3]", "int64[1]"], "needs the sizes as int64[2], got int64[1]"),
        (
            Slice((1, 0), (2, 3), (1, 1)),
            ["float32[2, 3]"],
            "the slice reaches outside float32[2, 3]: Slice(start=(1, 0), size=(2, 3), stride=(1, 1))",
        ),
        (
            Slice((0, -1), (2, 1), (1, 1)),
            ["float32[batch, 3]"],
            "the slice reaches outside float32[batch, 3]: Slice(start=(0, -1), size=(2, 1), stride=(1, 1))",
        ),
        (
            Slice((1, 0), (3, 3), (-1, 1)),
            ["float32[2, 3]"],
            "the slice reaches outside float32[2, 3]: Slice(start=(1, 0), size=(3, 3), stride=(-1, 1))",
        ),
        (Concatenation(0), ["float32[2]", "float16[2]"], "needs equal dtypes, got float32[2] and float16[2]"),
        (Concatenation(1), ["float32[2]", "float32[2]"], "axis 1 is not one of float32[2]"),
        (
            Concatenation(0),
            ["float32[2, 3]", "float32[2, 3]", "float32[2, 4]"],
            "cannot join float32[2, 3] and float32[2, 3] and float32[2, 4] along axis 0",
        ),
        (Concatenation(0), ["float32[2, 3]", "float32[2]"], "cannot join float32[2, 3] and float32[2] along axis 0"),
        (Fill(3, 0, 1, torch.int32), ["int32[1]"], "needs the sizes as int64[1], got int32[1]"),
        (Fill(3, 0, 1, torch.float32), ["int64[1]"], "needs an integer dtype, got float32[3]"),
        (Fill(3, 0, 1, torch.int8), ["int64[1]"], "needs an integer dtype, got int8[3]"),
    ],
)
def test_moving_layers_refuse_what_does_not_fit(layer, specs, message):
    assert refusal(layer, *specs) == message


def test_a_shape_lies_where_its_tensor_does():
    assert Shape().reference(torch.empty(2, 3, device="meta")).is_meta
