"""A network: typed values, and layers in the order in which they were added, one-to-one with TensorRT's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

from attrs import define, field, frozen
from typing_extensions import override

from ditto.errors import Place, ShapeError, at
from ditto.network.layer import Layer
from ditto.network.layers import Constant
from ditto.network.spec import Spec
from ditto.network.weight import Literals


@frozen
class Value:
    """A tensor of a network: an input or a layer's output, identified by its name."""

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
    """A layer with the names of its inputs and outputs, and the place in the user's model that it comes from."""

    layer: Layer
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    place: Place = Place()


@define
class Network:
    """A network, complete or under construction.

    `add` infers and checks the spec of the output, appends the layer, and returns a `Value`; existing nodes never
    change. `outputs` maps output names to value names, and `shared` maps outputs to the inputs whose memory they may
    use.
    """

    name: str = "network"
    inputs: dict[str, Spec] = field(factory=dict)
    nodes: list[Node] = field(factory=list)
    outputs: dict[str, str] = field(factory=dict)
    shared: dict[str, str] = field(factory=dict)
    literals: Literals = field(factory=Literals)
    _specs: dict[str, Spec] = field(factory=dict, repr=False)
    _producers: dict[str, Node] = field(factory=dict, repr=False)
    _counts: Counter[str] = field(factory=Counter, repr=False)
    _reserved: frozenset[str] = field(default=frozenset(), repr=False)
    _place: Place = Place()

    def successor(self) -> Network:
        """An empty network with the same name, inputs and literals.

        Names of its new layers do not occur in this network, so nodes of this network can be appended unrenamed.
        """
        network = Network(self.name, literals=self.literals)
        network._reserved = frozenset(self._specs)
        network._counts.update(self._counts)
        for name, spec in self.inputs.items():
            network.input(name, spec)
        return network

    @contextmanager
    def placed(self, place: Place) -> Generator[None]:
        """Context manager that attributes the layers added and errors raised inside it to `place`."""
        outer, self._place = self._place, place
        try:
            with at(place):
                yield
        finally:
            self._place = outer

    def input(self, name: str, spec: Spec) -> Value:
        """Add an input.

        Raises:
            ShapeError: an input of that name exists already.
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
        names = tuple(value.name for value in inputs)
        with at(self._place):
            inferred = layer.infer(*(value.spec for value in inputs))
        specs = inferred if isinstance(inferred, tuple) else (inferred,)
        return self.append(Node(layer, names, tuple(self._name() for _ in specs), self._place), specs)

    def append(self, node: Node, specs: tuple[Spec, ...]) -> tuple[Value, ...]:
        """Append a node whose outputs have `specs`, without shape inference; `add` checks the specs.

        Raises:
            ShapeError: a value with the name of one of its outputs exists already.
        """
        for name, spec in zip(node.outputs, specs, strict=True):
            if name in self._specs:
                raise ShapeError(f"there is a value named {name!r} already")
            self._specs[name] = spec
            self._producers[name] = node
        self.nodes.append(node)
        return tuple(map(Value, node.outputs, specs))

    def output(self, name: str, value: Value, shares: str | None = None) -> None:
        """Mark `value` as the output `name`, bound to the memory of the input `shares` if that is set."""
        self.outputs[name] = value.name
        if shares is not None:
            self.shared[name] = shares

    def value(self, name: str) -> Value:
        """The value with a given name.

        Raises:
            ShapeError: no value has that name.
        """
        if name not in self._specs:
            raise ShapeError(f"there is no value named {name!r}")
        return Value(name, self._specs[name])

    def producer(self, value: Value) -> Node | None:
        """The node that computes a value, None for an input."""
        return self._producers.get(value.name)

    def constants(self) -> list[Constant]:
        """The constants of the network, in order."""
        return [node.layer for node in self.nodes if isinstance(node.layer, Constant)]

    def _name(self) -> str:
        prefix = self._place.module or self.name
        while True:
            name = f"{prefix}.{self._counts[prefix]}"
            self._counts[prefix] += 1
            if name not in self._specs and name not in self._reserved:
                return name
