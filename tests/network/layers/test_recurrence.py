"""A recurrence gives what its operator gives, in PyTorch and as TensorRT's loop, and carries a state on."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from ditto import ops
from ditto.errors import ShapeError
from ditto.network import Network, Spec, symbol
from ditto.network.layers import LinearRecurrence
from ditto.reference import Constants, run
from tests.ops.test_states import recurrence
from tests.support.layers import NoTensors, emitted
from tests.support.witness import replay

FORMS = [
    {"per_row": per_row, "shared": shared, "rate": rate}
    for per_row in (False, True)
    for shared in (False, True)
    for rate in (False, True)
]


def _operands(given, tokens=slice(None)):
    query, key, value, decay, rate = (None if x is None else x[:, tokens] for x in given)
    found = {"factor": decay.exp()[..., None], "key": key[..., None], "query": query[..., None]}
    found["value"] = value[:, :, :, None]
    return found if rate is None else {**found, "rate": rate[..., None, None]}


def _network(operands, state, named):
    network = Network("test")
    specs = {"state": Spec.of(state), **{name: Spec.of(x) for name, x in operands.items()}}
    if named:
        leading = {name: (symbol("batch"), symbol("sequence")) for name in operands} | {"state": (symbol("batch"),)}
        specs = {
            name: spec.with_shape((*leading[name], *spec.shape[len(leading[name]) :])) for name, spec in specs.items()
        }
    values = [network.input(name, spec) for name, spec in specs.items()]
    results, last = network.add_many(LinearRecurrence(), *values)
    network.output("results", results)
    network.output("last", last)
    return network


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("named", [False, True])
def test_a_recurrence_gives_what_its_operator_gives(form, named):
    given = recurrence(**form)
    wanted = ops.linear_attention(*given, 0)
    state = torch.zeros(2, 2, 3, 4)
    inputs = {"state": state, **_operands(given)}
    network = _network(_operands(given), state, named)
    for found in (run(network, inputs, Constants(network, NoTensors())), replay(emitted(network).definition, inputs)):
        assert_close(found["results"].squeeze(3), wanted)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_state_carries_on_where_it_was_left(form):
    given = recurrence(**form)
    wanted = ops.linear_attention(*given, 0)
    state, found = torch.zeros(2, 2, 3, 4), []
    for tokens in (slice(0, 2), slice(2, 5)):
        operands = _operands(given, tokens)
        network = _network(operands, state, named=True)
        outputs = replay(emitted(network).definition, {"state": state, **operands})
        found.append(outputs["results"].squeeze(3))
        state = outputs["last"]
    assert_close(torch.cat(found, 1), wanted)


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
    operands = {"state": torch.zeros(2, 2, 3, 4), **_operands(recurrence())}
    specs = {key: Spec.of(x) for key, x in operands.items()}
    specs[name] = Spec.parse(spec)
    with pytest.raises(ShapeError) as error:
        LinearRecurrence().infer(*specs.values())
    assert str(error.value).startswith(message)
