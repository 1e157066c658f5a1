"""Recurrences give what their operator gives, in PyTorch and as TensorRT's loops, and carry a state on."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from ditto import ops
from ditto.errors import ShapeError
from ditto.network import Spec
from ditto.network.layers import ChunkedRecurrence, LinearRecurrence
from tests.support.recurrences import FORMS, computed, operands_by_head, operands_by_token, recurrence


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("named", [False, True])
def test_a_recurrence_gives_what_its_operator_gives(form, named):
    given = recurrence(**form)
    for results, _ in computed(LinearRecurrence(), operands_by_token(given), torch.zeros(2, 2, 3, 4), named):
        assert_close(results, ops.linear_attention(*given, 0))


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("layer", [LinearRecurrence(), ChunkedRecurrence(2)], ids=str)
def test_a_state_carries_on_where_it_was_left(form, layer):
    is_by_token = isinstance(layer, LinearRecurrence)
    if form["per_row"] and not is_by_token:
        return
    given = recurrence(**form)
    state, found = torch.zeros(2, 2, 3, 4), []
    for tokens in (slice(0, 3), slice(3, 5)):
        operands = (operands_by_token if is_by_token else operands_by_head)(given, tokens)
        (_, last), (results, state) = computed(layer, operands, state)
        assert_close(state, last)
        found.append(results)
    assert_close(torch.cat(found, 1), ops.linear_attention(*given, 0))


@pytest.mark.parametrize(
    ("name", "spec", "message"),
    [
        ("state", "float16[2, 2, 3, 4]", "needs float32, got float16[2, 2, 3, 4]"),
        ("value", "float32[2, 5, 2, 1, 5]", "values float32[2, 5, 2, 1, 5] do not fit the state float32[2, 2, 3, 4]"),
        ("key", "float32[2, 4, 2, 3, 1]", "float32[2, 4, 2, 3, 1] does not fit the state"),
        ("factor", "float32[2, 5, 3, 3, 1]", "cannot broadcast"),
    ],
)
def test_recurrences_refuse_what_does_not_fit(name, spec, message):
    operands = {"state": torch.zeros(2, 2, 3, 4), **operands_by_token(recurrence())}
    specs = {key: Spec.of(x) for key, x in operands.items()}
    specs[name] = Spec.parse(spec)
    with pytest.raises(ShapeError) as error:
        LinearRecurrence().infer(*specs.values())
    assert str(error.value).startswith(message)
