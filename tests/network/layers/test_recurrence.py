"""Recurrences give what their operator gives, in PyTorch and as TensorRT's loops, and carry a state on."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from ditto import ops
from ditto.errors import ShapeError
from ditto.network import Network, Spec, symbol
from ditto.network.layers import ChunkedRecurrence, LinearRecurrence
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


def _by_head(given, tokens=slice(None)):
    query, key, value, decay, rate = (None if x is None else x[:, tokens].transpose(1, 2) for x in given)
    found = {"decay": decay, "key": key, "query": query, "value": value}
    found |= {} if rate is None else {"rate": rate[..., None]}
    return {name: x.contiguous() for name, x in found.items()}


def _network(layer, operands, state, named):
    network = Network("test")
    specs = {"state": Spec.of(state), **{name: Spec.of(x) for name, x in operands.items()}}
    if named:
        axis = 1 if isinstance(layer, LinearRecurrence) else 2
        for name, spec in specs.items():
            shape = [symbol("batch"), *spec.shape[1:]]
            if name != "state":
                shape[axis] = symbol("sequence")
            specs[name] = spec.with_shape(tuple(shape))
    values = [network.input(name, spec) for name, spec in specs.items()]
    results, last = network.add_many(layer, *values)
    network.output("results", results)
    network.output("last", last)
    return network


def _computed(layer, operands, state, named=True):
    """Results [B, S, H, V] and last state, in PyTorch and by the layers that TensorRT gets."""
    network = _network(layer, operands, state, named)
    inputs, definition = {"state": state, **operands}, emitted(network)
    both = run(network, inputs, Constants(network, NoTensors())), replay(definition.definition, inputs)
    is_by_token = isinstance(layer, LinearRecurrence)
    return [
        (found["results"].squeeze(3) if is_by_token else found["results"].transpose(1, 2), found["last"])
        for found in both
    ]


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("named", [False, True])
def test_a_recurrence_gives_what_its_operator_gives(form, named):
    given = recurrence(**form)
    for results, _ in _computed(LinearRecurrence(), _operands(given), torch.zeros(2, 2, 3, 4), named):
        assert_close(results, ops.linear_attention(*given, 0))


@pytest.mark.parametrize("form", [form for form in FORMS if not form["per_row"]], ids=str)
@pytest.mark.parametrize(("tokens", "chunk"), [(1, 4), (5, 1), (8, 4), (13, 4), (70, 64)])
def test_chunks_give_what_their_operator_gives(form, tokens, chunk):
    query, key, *others = recurrence(**form, tokens=tokens)
    given = query, key / key.norm(dim=-1, keepdim=True), *others
    for results, _ in _computed(ChunkedRecurrence(chunk), _by_head(given), torch.zeros(2, 2, 3, 4)):
        assert_close(results, ops.linear_attention(*given, 0), rtol=1e-4, atol=1e-4)


def test_chunks_of_one_key_stay_exact():
    query, key, value, decay, rate = recurrence(tokens=64)
    key = key[:, :1] / key[:, :1].norm(dim=-1, keepdim=True)
    given = query, key.expand_as(query), value, torch.zeros_like(decay), torch.full_like(rate, 0.999)
    for results, _ in _computed(ChunkedRecurrence(64), _by_head(given), torch.zeros(2, 2, 3, 4)):
        assert_close(results, ops.linear_attention(*given, 0), rtol=1e-4, atol=1e-4)


def test_chunks_that_forget_everything_stay_finite():
    query, key, value, decay, rate = recurrence(tokens=9)
    given = query, key, value, torch.full_like(decay, -1e4), rate
    for results, _ in _computed(ChunkedRecurrence(4), _by_head(given), torch.zeros(2, 2, 3, 4)):
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
        operands = (_operands if is_by_token else _by_head)(given, tokens)
        (_, last), (results, state) = _computed(layer, operands, state)
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
    operands = {"state": torch.zeros(2, 2, 3, 4), **_operands(recurrence())}
    specs = {key: Spec.of(x) for key, x in operands.items()}
    specs[name] = Spec.parse(spec)
    with pytest.raises(ShapeError) as error:
        LinearRecurrence().infer(*specs.values())
    assert str(error.value).startswith(message)


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
    operands = {"state": torch.zeros(2, 2, 3, 4), **_by_head(recurrence())}
    specs = {key: Spec.of(x) for key, x in operands.items()}
    specs[name] = Spec.parse(spec)
    with pytest.raises(ShapeError) as error:
        ChunkedRecurrence(chunk).infer(*specs.values())
    assert str(error.value).startswith(message)
