"""Linear recurrences: operands at random, and layers computed by PyTorch and by what TensorRT gets."""

from __future__ import annotations

import torch

from ditto.network import Network, Spec, symbol
from ditto.network.layers import LinearRecurrence
from ditto.reference import Constants, run
from tests.support.layers import NoTensors, emitted
from tests.support.witness import replay

HEADS, ROWS, COLUMNS = 2, 3, 4


def recurrence(*, per_row=False, shared=False, rate=True, tokens=5):
    """Operands of a linear recurrence: query, key, value, decay, rate."""
    random = torch.Generator().manual_seed(1)

    def randn(*shape):
        return torch.randn(2, tokens, *shape, generator=random)

    heads = 1 if shared else HEADS
    decay = -randn(HEADS, ROWS if per_row else 1).abs()
    rates = randn(HEADS).sigmoid() if rate else None
    return randn(heads, ROWS), randn(heads, ROWS), randn(HEADS, COLUMNS), decay, rates


FORMS = [
    {"per_row": per_row, "shared": shared, "rate": rate}
    for per_row in (False, True)
    for shared in (False, True)
    for rate in (False, True)
]


def operands_by_token(given, tokens=slice(None)):
    query, key, value, decay, rate = (None if x is None else x[:, tokens] for x in given)
    found = {"factor": decay.exp()[..., None], "key": key[..., None], "query": query[..., None]}
    found["value"] = value[:, :, :, None]
    return found if rate is None else {**found, "rate": rate[..., None, None]}


def operands_by_head(given, tokens=slice(None)):
    query, key, value, decay, rate = (None if x is None else x[:, tokens].transpose(1, 2) for x in given)
    found = {"decay": decay, "key": key, "query": query, "value": value}
    found |= {} if rate is None else {"rate": rate[..., None]}
    return {name: x.contiguous() for name, x in found.items()}


def network_of(layer, operands, state, named):
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


def computed(layer, operands, state, named=True):
    """Results [B, S, H, V] and last state, in PyTorch and by the layers that TensorRT gets."""
    network = network_of(layer, operands, state, named)
    inputs, definition = {"state": state, **operands}, emitted(network)
    both = run(network, inputs, Constants(network, NoTensors())), replay(definition.definition, inputs)
    is_by_token = isinstance(layer, LinearRecurrence)
    return [
        (found["results"].squeeze(3) if is_by_token else found["results"].transpose(1, 2), found["last"])
        for found in both
    ]
