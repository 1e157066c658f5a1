"""The reference runs layer by layer, takes only what fits a network, and keeps no value longer than needed."""

from __future__ import annotations

import weakref

import pytest
import torch

from ditto.errors import Place, ShapeError
from ditto.network import Network, Spec
from ditto.network.dims import evaluate
from ditto.network.layers import Concatenation, Constant, ElementWise, KVCacheUpdate, Softmax, Unary
from ditto.network.weight import Stored
from ditto.reference import Constants, run, watching
from tests.support.layers import NoTensors
from tests.support.networks import every_layer_network, spec


def start(network, inputs):
    return run(network, inputs, Constants(network, NoTensors()))


def pair(x="float32[batch, sequence]", y="float32[batch, sequence]"):
    """x + y."""
    network = Network("net")
    values = [network.input(name, spec(text)) for name, text in (("x", x), ("y", y))]
    network.output("sum", network.add(ElementWise("SUM"), *values))
    return network


def test_outputs_come_by_name():
    network = pair()
    x, y = torch.rand(2, 3), torch.rand(2, 3)
    network.output("input", network.value("y"))
    found = start(network, {"y": y, "x": x})
    assert list(found) == ["sum", "input"]
    assert torch.equal(found["sum"], x + y)
    assert found["input"] is y


def cached(more=False):
    """A KV cache with an update; with more, the sum of the cache before and after it."""
    network = Network("net")
    cache = network.input("cache", spec("float32[batch, 2, 8, 4]"))
    new = network.input("new", spec("float32[batch, 2, 1, 4]"))
    before = network.add(Unary("NEG"), cache) if more else None
    updated = network.add(KVCacheUpdate(), cache, new, network.input("at", spec("int32[batch]")))
    network.output("updated", updated)
    if before is not None:
        network.output("sum", network.add(ElementWise("SUM"), before, updated))
    return network


@pytest.mark.parametrize("more", [False, True])
def test_a_shared_cache_is_overwritten_only_where_nothing_else_reads_it(more):
    network, cache, new = cached(more), torch.rand(2, 2, 8, 4), torch.rand(2, 2, 1, 4)
    given = {"cache": cache, "new": new, "at": torch.tensor([3, 7], dtype=torch.int32)}
    before, wanted = cache.clone(), cache.clone()
    wanted[0, :, 3:4], wanted[1, :, 7:8] = new[0], new[1]
    assert torch.equal(start(network, given)["updated"], wanted) and torch.equal(cache, before)
    with watching(lambda name, tensor: None):
        found = run(network, given, Constants(network, NoTensors()), ["cache"])
    assert found["updated"] is not cache and torch.equal(cache, before)
    found = run(network, given, Constants(network, NoTensors()), ["cache"])
    assert torch.equal(found["updated"], wanted)
    assert (found["updated"] is cache) != more
    if more:
        assert torch.equal(found["sum"], wanted - before)


def test_every_layer_is_watched_once_in_order_and_is_of_its_spec():
    network, inputs, source = every_layer_network()
    seen = []
    with watching(lambda name, tensor: seen.append((name, Spec.of(tensor)))):
        run(network, inputs, Constants(network, source))
    run(network, inputs, Constants(network, source))  # not watched
    assert [name for name, _ in seen] == [name for node in network.nodes for name in node.outputs]
    for name, found in seen:
        wanted = network.value(name).spec
        sizes = tuple(evaluate(dim, {"batch": 2, "sequence": 3}) for dim in wanted.shape)
        assert found == wanted.with_shape(sizes)


def test_a_value_is_dropped_after_its_last_use():
    network = Network("net")
    x = network.input("x", spec("float32[2]"))
    first = network.add(Unary("EXP"), x)
    second = network.add(ElementWise("SUM"), first, first)
    third = network.add(ElementWise("PROD"), second, first)
    fourth = network.add(Unary("ABS"), third)
    network.output("kept", second)
    network.output("last", network.add(Unary("SIN"), fourth))
    alive, seen = [], {}

    def watch(name, tensor):
        seen[name] = weakref.ref(tensor)
        alive.append([int(known[-1]) for known, tensor in seen.items() if tensor() is not None])

    with watching(watch):
        start(network, {"x": torch.rand(2)})
    assert alive == [[0], [0, 1], [0, 1, 2], [1, 2, 3], [1, 3, 4]]


def test_no_gradients_are_recorded():
    x = torch.rand(2, 3, requires_grad=True)
    assert not start(pair(), {"x": x, "y": x})["sum"].requires_grad


def test_inputs_are_not_written_to():
    network, inputs, source = every_layer_network()
    before = {name: tensor.clone() for name, tensor in inputs.items()}
    run(network, inputs, Constants(network, source))
    assert all(torch.equal(inputs[name], tensor) for name, tensor in before.items())


def test_a_named_dimension_is_any_size_that_all_inputs_agree_on():
    network = Network("net")
    x, y = network.input("x", spec("float32[2*n + 1]")), network.input("y", spec("float32[n]"))
    network.output("joined", network.add(Concatenation(0), x, y))
    for n in (0, 1, 4):
        assert start(network, {"x": torch.ones(2 * n + 1), "y": torch.ones(n)})["joined"].shape == (3 * n + 1,)


@pytest.mark.parametrize(
    ("x", "y", "shapes", "message"),
    [
        ("float32[2]", "float32[2]", {"x": (2,)}, "the network expects x, y; missing or unknown: y"),
        ("float32[2]", "float32[2]", {"x": (2,), "z": (2,)}, "the network expects x, y; missing or unknown: y, z"),
        ("int32[2]", "int32[2]", {"x": (2,), "y": (2,)}, "input x is float32[2], the network expects int32[2]"),
        (
            "float32[2]",
            "float32[2]",
            {"x": (2, 1), "y": (2,)},
            "input x is float32[2, 1], the network expects float32[2]",
        ),
        ("float32[2]", "float32[2]", {"x": (2,), "y": (3,)}, "input y is float32[3], the others make it float32[2]"),
        ("float32[n]", "float32[n]", {"x": (2,), "y": (3,)}, "input y is float32[3], the others make it float32[2]"),
        (
            "float32[n, n]",
            "float32[n, n]",
            {"x": (2, 3), "y": (2, 2)},
            "input x is float32[2, 3], the others make it float32[2, 2]",
        ),
        ("float32[n]", "float32[1]", {"x": (2,), "y": (2,)}, "input y is float32[2], the others make it float32[1]"),
        ("float32[2*n]", "float32[2*n]", {"x": (2,), "y": (2,)}, "the size of dimension `n` is not known"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(x, y, shapes, message):
    with pytest.raises(ShapeError) as error:
        start(pair(x, y), {name: torch.zeros(shape) for name, shape in shapes.items()})
    assert error.value.cause == message


def test_an_error_inside_carries_its_place():
    network = Network("net")
    with network.placed(Place("model.head", "model.py:9")):
        weight = network.add(Constant(Stored("w", (3,), torch.float32)))
        network.output("y", network.add(Softmax(0), weight))

    class Changed(NoTensors):
        def tensor(self, name):
            return torch.zeros(4)

    with pytest.raises(ShapeError) as error:
        run(network, {}, Constants(network, Changed()))
    assert str(error.value) == (
        "checkpoint tensor `w` is float32[4], the network was described with float32[3]\n"
        "at: model.head (model.py:9)\n"
        "hint: build the engines again from this checkpoint"
    )
