"""A network cut at its products and attention layers: each of these alone, and what stands between them in pieces.

A value's level is how many products with weights, or attention layers, follow each other on the longest way to it.
Layers of one level that read each other, or the same product's result, are a piece. So a residual sum goes with the
norm behind it, and the next sum takes the stream from outside. What no weight takes part in (masks, rotations, ids) is
made once for all blocks, as a piece of its own. Literals, sizes computed from shapes, and other shapes of weights go
into each piece that reads them; weights are inputs.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from attrs import define, field, frozen

from ditto.network import Network, Spec
from ditto.network.dims import evaluate
from ditto.network.graph import Node
from ditto.network.layers import Attention, Constant, MatrixMultiply, Shuffle
from ditto.passes.body import size_nodes
from ditto.passes.external_weights import ExternalWeights


@frozen(eq=False)
class Piece:
    """Some layers as a network. Inputs are called as the values are in the whole network.

    Args:
        network: of the layers, and of the literals, sizes and other shapes of weights that they read.
        layers: without these.
        fixed: inputs that are weights.
        is_kernel: one product with a weight, or one attention layer.
        likeness: equal for pieces that differ in names alone.
    """

    network: Network
    layers: tuple[Node, ...]
    fixed: frozenset[str]
    is_kernel: bool
    likeness: object

    def title(self, sizes: Mapping[str, int]) -> str:
        """A kernel's kind and its inputs' shapes; else the kinds of layers, and the place of the first."""
        if self.is_kernel:
            specs = self.network.inputs.values()
            shapes = ("x".join(str(evaluate(dim, sizes)) for dim in spec.shape) for spec in specs)
            return f"{type(self.layers[0].layer).__name__} {', '.join(shapes)}"
        found = Counter(type(node.layer).__name__ for node in self.layers)
        told = ", ".join(kind if count == 1 else f"{count} {kind}" for kind, count in found.items())
        return f"{told} ({self.layers[0].place.module or 'outside of modules'})"


def kinds(pieces: Sequence[Piece]) -> list[tuple[Piece, int]]:
    """The first of each kind, and how many are like it."""
    counts = Counter(piece.likeness for piece in pieces)
    firsts = {piece.likeness: piece for piece in reversed(pieces)}
    return [(firsts[likeness], count) for likeness, count in counts.items()]


def cut(network: Network) -> list[Piece]:
    """All layers of a network, constants and sizes aside, each in one piece; what a piece reads is made before it.

    Args:
        network: left as it is.
    """
    return _Cut(network).pieces()


@define
class _Group:
    """Layers that belong together.

    Args:
        level: -1 for what is made once.
        values: through which others of the level join.
    """

    level: int
    is_kernel: bool = False
    nodes: list[Node] = field(factory=list)
    values: set[str] = field(factory=set)


class _Cut:
    """Sorts a network's nodes, in order."""

    def __init__(self, network: Network) -> None:
        self._network, self._external = network, ExternalWeights(network, math.inf)
        self._known_as = {value: name for name, value in network.outputs.items()}
        self._order = {node.outputs[0]: index for index, node in enumerate(network.nodes)}
        self._readers: dict[str, set[str]] = defaultdict(set)
        for node in network.nodes:
            for name in node.inputs:
                self._readers[name].add(node.outputs[0])
        self._weights: set[str] = set()
        self._shaped: dict[str, Node] = {}  # weights in other shapes
        self._constants: dict[str, Node] = {}  # that stay inside
        self._sizes = size_nodes(network)
        self._levels: dict[str, int] = {}
        self._groups: list[_Group] = []
        once = _Group(-1)
        plain = {*network.inputs} - {*network.shared.values()}
        for node in network.nodes:
            if self._is_aside(node):
                continue
            if self._is_kernel(node):
                self._put(node, is_kernel=True)
            elif plain.union(self._constants, self._sizes).issuperset(node.inputs):
                once.nodes.append(node)
                plain.update(node.outputs)
            else:
                self._put(node)
        if once.nodes:
            self._groups.append(once)

    def pieces(self) -> list[Piece]:
        """In an order in which they can be run."""
        ordered = sorted(self._groups, key=lambda group: (group.level, group.is_kernel))
        return [self._piece(group) for group in ordered]

    def _is_aside(self, node: Node) -> bool:
        """Whether a node is a constant, or one in another shape, or a size; it is noted as such."""
        (name, *_), reads = node.outputs, node.inputs
        is_constant = isinstance(node.layer, Constant)
        is_shuffle = isinstance(node.layer, Shuffle) and len(reads) == 1
        if is_constant and self._external.may_be_external(name):
            self._weights.add(name)
        elif is_shuffle and self._is_weight(reads[0]):
            self._shaped[name] = node
        elif is_constant or (is_shuffle and reads[0] in self._constants):
            self._constants[name] = node
        else:
            return name in self._sizes
        return True

    def _is_kernel(self, node: Node) -> bool:
        is_product = isinstance(node.layer, MatrixMultiply) and any(map(self._is_weight, node.inputs))
        return is_product or isinstance(node.layer, Attention)

    def _is_weight(self, name: str) -> bool:
        return name in self._weights or name in self._shaped

    def _put(self, node: Node, is_kernel: bool = False) -> None:
        """Give a node its level, and its place among those of that level."""
        level = max((self._levels.get(name, 0) for name in node.inputs), default=0)
        self._levels.update(dict.fromkeys(node.outputs, level + is_kernel))
        group = _Group(level, is_kernel, [node])
        if not is_kernel:
            group.values.update(node.outputs, (name for name in node.inputs if self._levels.get(name) == level))
            alike = [each for each in self._groups if each.level == level and not each.values.isdisjoint(group.values)]
            for each in alike:
                group.nodes += each.nodes
                group.values |= each.values
                self._groups.remove(each)
        self._groups.append(group)

    def _piece(self, group: _Group) -> Piece:
        made = Network("piece", literals=self._network.literals)
        nodes = sorted(group.nodes, key=lambda node: self._order[node.outputs[0]])
        within = {name for node in nodes for name in node.outputs}
        copied: list[Node] = []

        def take(name: str) -> None:
            node = self._constants.get(name) or self._sizes.get(name) or self._shaped.get(name)
            if node is None:
                if name not in within and name not in made.inputs:
                    made.input(name, self._spec(name))
            elif node not in copied:
                for read in node.inputs:
                    take(read)
                copied.append(node)

        for node in nodes:
            for name in node.inputs:
                take(name)
        for node in (*copied, *nodes):
            made.append(node, tuple(self._spec(name) for name in node.outputs))
        members = {node.outputs[0] for node in nodes}
        for name in (name for node in nodes for name in node.outputs):
            if name in self._known_as or not self._readers[name] <= members:
                known_as = self._known_as.get(name, name)
                made.output(known_as, made.value(name), self._network.shared.get(known_as))
        fixed = frozenset(made.inputs.keys() & self._weights)
        return Piece(made, tuple(nodes), fixed, group.is_kernel, (group.is_kernel, _likeness(made, fixed)))

    def _spec(self, name: str) -> Spec:
        return self._network.value(name).spec


def _likeness(network: Network, fixed: frozenset[str]) -> object:
    """A network with numbers, in the order in which they come, for names."""
    numbers: dict[str, int] = {}
    layers = [
        (node.layer, tuple(numbers.setdefault(name, len(numbers)) for name in (*node.inputs, *node.outputs)))
        for node in network.nodes
    ]
    values = tuple((network.value(name).spec, name in network.inputs, name in fixed) for name in numbers)
    shared = {network.outputs[name]: source for name, source in network.shared.items()}
    outputs = tuple((numbers[value], numbers.get(shared.get(value, ""))) for value in network.outputs.values())
    return tuple(layers), values, outputs
