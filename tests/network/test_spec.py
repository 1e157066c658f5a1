"""Shape and dtype of tensors that do not exist yet."""

from __future__ import annotations

import pytest
import torch

from ditto.errors import ShapeError
from ditto.network import Spec
from ditto.network.dims import multiply
from ditto.network.spec import broadcast, same_dtype
from tests.support.networks import BATCH, SEQUENCE, spec


def test_the_spec_of_a_tensor_is_its_shape_and_dtype():
    found = Spec.of(torch.zeros(2, 3, dtype=torch.bfloat16))
    assert found == Spec((2, 3), torch.bfloat16)
    assert str(found) == "bfloat16[2, 3]"
    assert (found.rank, found.numel, found.is_static) == (2, 6, True)


def test_named_dimensions_make_a_spec_dynamic():
    found = Spec((BATCH, 3), torch.int64)
    assert (found.numel, found.is_static) == (multiply(3, BATCH), False)
    assert str(found.with_shape((multiply(2, BATCH),)).with_dtype(torch.bool)) == "bool[2*batch]"
    assert str(Spec((), torch.float32)) == "float32[]"


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda: spec("int64[2]").floating(), "needs a floating dtype, got int64[2]"),
        (lambda: spec("float16[2]").integral(), "needs an integer dtype, got float16[2]"),
        (lambda: spec("int8[2]").integral(), "needs an integer dtype, got int8[2]"),
        (lambda: spec("bool[2, batch]").of_rank(1, 3), "needs rank 1 or 3, got bool[2, batch]"),
        (
            lambda: same_dtype(spec("float16[2]"), spec("float32[2]")),
            "needs equal dtypes, got float16[2] and float32[2]",
        ),
        (lambda: broadcast((2, 3), (3,)), "needs equal ranks to broadcast, got [2, 3] and [3]"),
        (lambda: broadcast((2, 3), (1, 4)), "cannot broadcast [2, 3] with [1, 4]"),
        (lambda: broadcast((BATCH,), (SEQUENCE,)), "cannot broadcast [batch] with [sequence]"),
        (lambda: broadcast((BATCH,), (2,)), "cannot broadcast [batch] with [2]"),
    ],
)
def test_a_spec_that_does_not_fit_says_what_it_is(check, message):
    with pytest.raises(ShapeError) as error:
        check()
    assert error.value.cause == message


def test_a_spec_that_fits_is_returned():
    x = spec("float16[batch, 2]")
    assert x.floating().of_rank(1, 2) is x
    assert [spec(f"{dtype}[1]").integral().dtype for dtype in ("int64", "int32")] == [torch.int64, torch.int32]
    assert same_dtype(x, spec("float16[]")) == torch.float16


@pytest.mark.parametrize("shapes", [((2, 1, 3), (1, 4, 3)), ((1, 1), (1, 1)), ((5, 1), (5, 2), (1, 2))])
def test_shapes_broadcast_as_in_torch(shapes):
    assert broadcast(*shapes) == tuple(torch.broadcast_shapes(*shapes))


def test_named_dimensions_broadcast_with_1_and_with_themselves():
    assert broadcast((BATCH, 1), (1, SEQUENCE), (BATCH, 1)) == (BATCH, SEQUENCE)
