"""Recurrences in chunks give what their operator gives, in PyTorch and as TensorRT's loops."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from ditto import ops
from ditto.errors import ShapeError
from ditto.network import Spec
from ditto.network.layers import ChunkedRecurrence
from tests.support.recurrences import FORMS, computed, operands_by_head, recurrence


@pytest.mark.parametrize("form", [form for form in FORMS if not form["per_row"]], ids=str)
@pytest.mark.parametrize(("tokens", "chunk"), [(1, 4), (5, 1), (8, 4), (13, 4), (70, 64)])
def test_chunks_give_what_their_operator_gives(form, tokens, chunk):
    query, key, *others = recurrence(**form, tokens=tokens)
    given = query, key / key.norm(dim=-1, keepdim=True), *others
    for results, _ in computed(ChunkedRecurrence(chunk), operands_by_head(given), torch.zeros(2, 2, 3, 4)):
        assert_close(results, ops.linear_attention(*given, 0), rtol=1e-4, atol=1e-4)


def test_chunks_of_one_key_stay_exact():
    query, key, value, decay, rate = recurrence(tokens=64)
    key = key[:, :1] / key[:, :1].norm(dim=-1, keepdim=True)
    given = query, key.expand_as(query), value, torch.zeros_like(decay), torch.full_like(rate, 0.999)
    for results, _ in computed(ChunkedRecurrence(64), operands_by_head(given), torch.zeros(2, 2, 3, 4)):
        assert_close(results, ops.linear_attention(*given, 0), rtol=1e-4, atol=1e-4)


def test_chunks_that_forget_everything_stay_finite():
    query, key, value, decay, rate = recurrence(tokens=9)
    given = query, key, value, torch.full_like(decay, -1e4), rate
    for results, _ in computed(ChunkedRecurrence(4), operands_by_head(given), torch.zeros(2, 2, 3, 4)):
        assert_close(results, ops.linear_attention(*given, 0))


@pytest.mark.parametrize(
    ("chunk", "name", "spec", "message"),
    [
        (3, "state", "float32[2, 2, 3, 4]", "3 tokens of a chunk are not a power of two"),
        (4, "state", "float16[2, 2, 3, 4]", "needs float32, got float16[2, 2, 3, 4]"),
        (4, "value", "float32[2, 3, 5, 4]", "values float32[2, 3, 5, 4] do not fit the state float32[2, 2, 3, 4]"),
        (4, "decay", "float32[2, 2, 5, 3]", "float32[2, 2, 5, 3] does not fit the state"),
        (4, "key", "float32[2, 3, 5, 3]", "cannot broadcast"),
    ],
)
def test_chunks_refuse_what_does_not_fit(chunk, name, spec, message):
    operands = {"state": torch.zeros(2, 2, 3, 4), **operands_by_head(recurrence())}
    specs = {key: Spec.of(x) for key, x in operands.items()}
    specs[name] = Spec.parse(spec)
    with pytest.raises(ShapeError) as error:
        ChunkedRecurrence(chunk).infer(*specs.values())
    assert str(error.value).startswith(message)
