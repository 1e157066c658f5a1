"""A network: typed values, layers one-to-one with TensorRT's, in the order in which they were added."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

from attrs import define, field, frozen
from typing_extensions import override

from ditto.errors import Place, ShapeError, at
from ditto.network.layer import Layer
from ditto.network.layers import Constant, Shuffle
from ditto.network.spec import Spec
from ditto.network.weight import Literals


@frozen
class Value:
    """A tensor of a network: an input or a layer's output, known by its name."""

    name: str
    spec: Spec

    @property
    def rank(self) -> int:
        return self.spec.rank

    @override
    def __str__(self) -> str:
        return f"%{self.name}"


@frozen
class Node:
    """A layer in its place: what goes in and out by name, and where in the user's model it comes from."""

    layer: Layer
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    place: Place = Place()


@define
class Network:
    """A network under construction or whole.

    `add` infers the output's spec, checks it, and returns a `Value`; adding the same layer to the same inputs twice
    returns the first value. `outputs` maps the name an output is known by to a value's name, `shared` an output to
    the input whose memory it may use.
    """

    name: str = "network"
    inputs: dict[str, Spec] = field(factory=dict)
    nodes: list[Node] = field(factory=list)
    outputs: dict[str, str] = field(factory=dict)
    shared: dict[str, str] = field(factory=dict)
    literals: Literals = field(factory=Literals)
    _specs: dict[str, Spec] = field(factory=dict, repr=False)
    _known: dict[tuple[Layer, tuple[str, ...]], tuple[str, ...]] = field(factory=dict, repr=False)
    _producers: dict[str, Node] = field(factory=dict, repr=False)
    _counts: Counter[str] = field(factory=Counter, repr=False)
    _place: Place = Place()

    @contextmanager
    def placed(self, place: Place) -> Generator[None]:
        """Layers added inside, and errors raised inside, come from `place`."""
        outer, self._place = self._place, place
        try:
            with at(place):
                yield
        finally:
            self._place = outer

    def input(self, name: str, spec: Spec) -> Value:
        """Add an input.

        Raises:
            ShapeError: there is one of that name.
        """
        if name in self._specs:
            raise ShapeError(f"there is a value named {name!r} already")
        self.inputs[name] = self._specs[name] = spec
        return Value(name, spec)

    def add(self, layer: Layer, *inputs: Value) -> Value:
        """Add a layer with one output.

        Raises:
            ShapeError: the inputs do not fit the layer.
        """
        values = self.add_many(layer, *inputs)
        assert len(values) == 1, f"{layer} has {len(values)} outputs"
        return values[0]

    def add_many(self, layer: Layer, *inputs: Value) -> tuple[Value, ...]:
        """Add a layer with any number of outputs.

        Raises:
            ShapeError: the inputs do not fit the layer.
        """
        layer, inputs = self._merged(layer, inputs)
        names = tuple(value.name for value in inputs)
        if (layer, names) in self._known:
            return tuple(self.value(name) for name in self._known[layer, names])
        with at(self._place):
            inferred = layer.infer(*(value.spec for value in inputs))
        specs = inferred if isinstance(inferred, tuple) else (inferred,)
        return self.append(Node(layer, names, tuple(self._name() for _ in specs), self._place), specs)

    def append(self, node: Node, specs: tuple[Spec, ...]) -> tuple[Value, ...]:
        """Append a node whose outputs have `specs`; `add` is the checked way.

        Raises:
            ShapeError: there is a value of one of its outputs' names.
        """
        for name, spec in zip(node.outputs, specs, strict=True):
            if name in self._specs:
                raise ShapeError(f"there is a value named {name!r} already")
            self._specs[name] = spec
            self._producers[name] = node
        self.nodes.append(node)
        self._known[node.layer, node.inputs] = node.outputs
        return tuple(map(Value, node.outputs, specs))

    def output(self, name: str, value: Value, shares: str | None = None) -> None:
        """Make `value` an output known as `name`, if given in the memory of input `shares`."""
        self.outputs[name] = value.name
        if shares is not None:
            self.shared[name] = shares

    def value(self, name: str) -> Value:
        """The value of that name.

        Raises:
            ShapeError: there is none.
        """
        if name not in self._specs:
            raise ShapeError(f"there is no value named {name!r}")
        return Value(name, self._specs[name])

    def producer(self, value: Value) -> Node | None:
        """The node that makes a value, None for an input."""
        return self._producers.get(value.name)

    def prune(self) -> None:
        """Drop the nodes that no output needs."""
        needed = set(self.outputs.values())
        kept: list[Node] = []
        for node in reversed(self.nodes):
            if needed.intersection(node.outputs):
                kept.append(node)
                needed.update(node.inputs)
        self.nodes = kept[::-1]
        self._known = {(node.layer, node.inputs): node.outputs for node in self.nodes}

    def constants(self) -> list[Constant]:
        """The constants, in order."""
        return [node.layer for node in self.nodes if isinstance(node.layer, Constant)]

    def _name(self) -> str:
        prefix = self._place.module or self.name
        while True:
            name = f"{prefix}.{self._counts[prefix]}"
            self._counts[prefix] += 1
            if name not in self._specs:
                return name

    def _merged(self, layer: Layer, inputs: tuple[Value, ...]) -> tuple[Layer, tuple[Value, ...]]:
        """A shuffle of a shuffle as one, where one can express both."""
        if not isinstance(layer, Shuffle) or layer.sizes is not None:
            return layer, inputs
        made = self._producers.get(inputs[0].name)
        if made is None or not isinstance(made.layer, Shuffle) or made.layer.sizes is not None:
            return layer, inputs
        before = made.layer
        source = (self.value(made.inputs[0]),)
        if before.reshape is None:
            axes = _after(before.first, before.second)
            return Shuffle(_after(axes, layer.first), layer.reshape, layer.second), source
        if layer.reshape is None:
            axes = _after(layer.first, layer.second)
            return Shuffle(before.first, before.reshape, _after(before.second, axes)), source
        return layer, inputs


def _after(first: tuple[int, ...] | None, second: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """Two transposes as one; None for none."""
    if first is None or second is None:
        axes = first or second
    else:
        axes = tuple(first[axis] for axis in second)
    return None if axes is None or axes == tuple(range(len(axes))) else axes
