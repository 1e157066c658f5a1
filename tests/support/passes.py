"""Networks from their printed form, and the proof that a pass leaves what they compute."""

from __future__ import annotations

import re
from collections.abc import Mapping
from textwrap import dedent
from typing import Any

import torch
from torch import Tensor
from torch.testing import assert_close

from ditto.errors import Place
from ditto.network import Network, Node, Spec, check, layers, network_text
from ditto.network.dims import evaluate, parse
from ditto.network.spec import dtype_named
from ditto.network.weight import Stored, leaves
from ditto.passes import NetworkPass, PassResult
from ditto.reference import Constants, run

SIZES = {"batch": 2, "sequence": 3, "kv_length": 5}


def network_from(text: str) -> Network:
    """The network that `network_text` prints as `text`, which may be indented. A constant is a checkpoint tensor, or a
    literal filled with a number: `Constant(weight=literal 2)`. Layers come from modules as their first output says."""
    network = Network("net")
    for line in dedent(text).strip().splitlines():
        if given := re.fullmatch(r"input %(\S+): (.+)", line):
            network.input(given[1], Spec.parse(given[2]))
        elif given := re.fullmatch(r"output (\S+) = %(\S+)(?: in %(\S+))?", line):
            network.output(given[1], network.value(given[2]), given[3])
        else:
            network.append(*_node(network, line))
    check(network)
    return network


def _node(network: Network, line: str) -> tuple[Node, tuple[Spec, ...]]:
    made = re.fullmatch(r"%(\S+): (\w+\[[^\]]*\]) = (\w+)(?:\((.*)\))?((?: %\S+)*)", line)
    assert made is not None, line
    name, spec, kind, fields, inputs = made[1], Spec.parse(made[2]), made[3], made[4] or "", made[5]
    if kind == "Constant":
        layer: Any = layers.Constant(_weight(network, fields.removeprefix("weight="), spec))
    else:
        layer = getattr(layers, kind)(**{key: _field(value) for key, value in _split(fields)})
    place = Place(name.rpartition(".")[0])
    return Node(layer, tuple(each.removeprefix("%") for each in inputs.split()), (name,), place), (spec,)


def _weight(network: Network, text: str, spec: Spec) -> Any:
    shape = tuple(int(str(dim)) for dim in spec.shape)
    if text.startswith("literal "):
        return network.literals.keep(torch.full(shape, float(text.removeprefix("literal "))).to(spec.dtype))
    return Stored(text, shape, spec.dtype)


def _split(fields: str) -> list[tuple[str, str]]:
    return re.findall(r"(\w+)=(\([^)]*\)|[^,]+)", fields)


def _field(text: str) -> Any:
    if text.startswith("("):
        return tuple(parse(item) for item in text[1:-1].split(",") if item.strip())
    if text in ("True", "False"):
        return text == "True"
    if re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", text):
        return float(text) if "." in text or "e" in text else int(text)
    return dtype_named(text) if re.fullmatch(r"(float|bfloat|int)\d+|bool", text) else text


class RandomTensors:
    """A checkpoint with random tensors, the same each time."""

    def __init__(self, network: Network) -> None:
        stored = (leaf for constant in network.constants() for leaf in _stored(constant.weight))
        self._specs = {leaf.name: Spec(leaf.shape, leaf.dtype) for leaf in stored}

    def tensor(self, name: str) -> Tensor:
        return _random(name, self._specs[name], {})

    def release(self) -> None:
        """Memory is all it has."""


def _stored(weight: Any) -> list[Stored]:
    return [leaf for leaf in leaves(weight) if isinstance(leaf, Stored)]


def _random(name: str, spec: Spec, sizes: Mapping[str, int]) -> Tensor:
    shape = [evaluate(dim, sizes) for dim in spec.shape]
    generator = torch.Generator().manual_seed(sum(name.encode()))
    if spec.dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(spec.dtype)
    return torch.randint(0, 2, shape, generator=generator).to(spec.dtype)


def outputs_of(network: Network) -> dict[str, Tensor]:
    """What a network computes of random inputs and weights."""
    inputs = {name: _random(name, spec, SIZES) for name, spec in network.inputs.items()}
    return run(network, inputs, Constants(network, RandomTensors(network)))


def check_same(before: Network, after: Network, **tolerance: float) -> None:
    """Check that two networks have the same interface and compute the same: exactly, or within a tolerance."""
    check(after)
    assert (after.name, after.inputs, after.shared) == (before.name, before.inputs, before.shared)
    assert list(after.outputs) == list(before.outputs)
    found, wanted = outputs_of(after), outputs_of(before)
    for name, tensor in wanted.items():
        assert_close(found[name], tensor, **(tolerance or {"rtol": 0, "atol": 0}), equal_nan=True)


def check_pass(each: NetworkPass, text: str, wanted: str, **tolerance: float) -> PassResult:
    """Run a pass over the network that is printed as `text`: it becomes what is printed as `wanted`, literals without
    their digests, which computes the same; and stays as it was itself."""
    network = network_from(text)
    before = network_text(network)
    result = each.run(network)
    after = re.sub(r"literal [0-9a-f]{8}", "literal", network_text(result.network))
    assert after == re.sub(r"literal \d+", "literal", dedent(wanted).strip() + "\n")
    assert network_text(network) == before
    check_same(network, result.network, **tolerance)
    return result
