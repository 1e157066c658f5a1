"""A network in parts: the blocks of a transformer are the same network with other weights. A block that takes its
weights as inputs is compiled once and run many times; blocks with weights inside are compiled one by one, in the memory
that one takes.

What a block computes for a KV cache alone, which prompts do not read, is a part of its own: it may run beside the
blocks that follow. Measured on an H200, six layers of Llama-7B's size, 640 tokens: one prompt 3.06 ms become 3.02, four
11.70 become 11.40.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import torch
from attrs import evolve, frozen

from ditto.network.calls import Call, Calls
from ditto.network.graph import Network, Node
from ditto.network.layers import Constant, MatrixMultiply, Shape, Shuffle, Slice
from ditto.network.outside import LEAST_BYTES, Outside, free_name

# Of a network's periods, those that are tried: the shortest distance between likes within a block may be more frequent.
_MOST_PERIODS = 64
# A repetition that spares less than this share of the nodes is not worth a cut: likes within a block, say.
_LEAST_SPARED = 1 / 6


@frozen
class Parts:
    """A network as calls of smaller ones.

    Args:
        networks: the parts.
        calls: of them.
        outside: for each tensor that is a weight, the constant of the whole network whose numbers are bound to it.
    """

    networks: tuple[Network, ...]
    calls: Calls
    outside: dict[str, str]


def whole(network: Network) -> Parts:
    """A network as one part."""
    return Parts((network,), Calls.once((*network.inputs, *network.outputs)), {})


def in_parts(network: Network, least_bytes: int = LEAST_BYTES) -> Parts:
    """A network with its large weights as inputs, in up to three parts: what comes before its repeated blocks, a block,
    what comes after; each without what it computes for a KV cache alone, which is one more. What differs between blocks
    is an input, too. A network that repeats nothing is one part.

    Args:
        network: left as it is.
        least_bytes: of a large weight.
    """
    division = _Division(network, least_bytes)
    return division.parts(division.runs())


def in_blocks(network: Network) -> Parts:
    """A network with its weights inside, cut as `in_parts` cuts it, each block a part of its own.

    Args:
        network: left as it is.
    """
    division = _Division(network, math.inf)
    return division.parts([_Run(first, run.period, 1) for run in division.runs() for first in run.firsts])


def size_nodes(network: Network) -> dict[str, Node]:
    """Nodes that compute sizes from the shapes of inputs, by what they make; what the network gives is none."""
    given = {*network.outputs.values()}
    known = {node.outputs[0] for node in network.nodes if isinstance(node.layer, Constant)} - given
    found: dict[str, Node] = {}
    for node in network.nodes:
        if isinstance(node.layer, Shape):
            is_size = node.inputs[0] in network.inputs
        else:
            spec = network.value(node.outputs[0]).spec
            is_size = bool(node.inputs) and spec.dtype == torch.int64 and known.issuperset(node.inputs)
        if is_size and node.outputs[0] not in given:
            found[node.outputs[0]] = node
            known.add(node.outputs[0])
    return found


@frozen
class _Run:
    """Blocks in a row: the first one's first node, how many nodes each has, how many there are."""

    start: int
    period: int
    count: int

    @property
    def stop(self) -> int:
        return self.start + self.period * self.count

    @property
    def firsts(self) -> range:
        return range(self.start, self.stop, self.period)


@frozen
class _Share:
    """What one part computes of each of a run's blocks.

    Args:
        offsets: of its nodes in the block.
        given: (offset, which output) of what it gives.
        beside: nothing waits for it.
    """

    offsets: tuple[int, ...]
    given: frozenset[tuple[int, int]]
    beside: bool = False


class _Division:
    """Constants, and sizes computed from shapes, go into each part that reads them. All other nodes, in order, are the
    body, which is cut."""

    def __init__(self, network: Network, least_bytes: float) -> None:
        self._network, self._outside = network, Outside(network, least_bytes)
        self._known_as = {value: name for name, value in network.outputs.items()}
        constants = (node for node in network.nodes if isinstance(node.layer, Constant))
        self._constants = {node.outputs[0]: node for node in constants if node.outputs[0] not in self._known_as}
        self._sizes = size_nodes(network)
        self._body = self._in_order()
        self._made_by = {name: index for index, node in enumerate(self._body) for name in node.outputs}
        self._readers: dict[str, list[int]] = defaultdict(list)
        for index, node in enumerate(self._body):
            for name in node.inputs:
                self._readers[name].append(index)

    def runs(self) -> list[_Run]:
        """What comes before the repeated blocks, these, what comes after; all, where nothing repeats."""
        run = self._blocks()
        if run is None:
            return [_Run(0, len(self._body), 1)]
        around = _Run(0, run.start, 1), run, _Run(run.stop, len(self._body) - run.stop, 1)
        return [each for each in around if each.period]

    def parts(self, runs: Sequence[_Run]) -> Parts:
        """The network in parts, one or two for each run."""
        networks: list[Network] = []
        calls: list[Call] = []
        for run in runs:
            shares = self._shares(run) if len(runs) > 1 else [self._share(run, range(run.period))]
            made = [self._part(run, share) for share in shares]
            of_blocks = zip(*(tensors for _, tensors in made), strict=True)
            for tensors in of_blocks:
                numbered = enumerate(zip(shares, tensors, strict=True), len(networks))
                calls.extend(Call(number, names, share.beside) for number, (share, names) in numbered)
            networks.extend(network for network, _ in made)
        used = {name for call in calls for name in call.tensors.values()}
        between = {name: self._network.value(name).spec for name in self._made_by if name in used}
        outside = {name: value for value, name in self._outside.names.items()}
        return Parts(tuple(networks), Calls(tuple(calls), between), outside)

    def _in_order(self) -> list[Node]:
        """All other nodes; first those that no weight takes part in, such as masks, which the first block that needs
        one has made for all."""
        plain = {*self._network.inputs, *self._sizes} - {*self._network.shared.values()}
        plain.update(name for name in self._constants if not self._outside.may(name))
        first: list[Node] = []
        then: list[Node] = []
        for node in self._network.nodes:
            if node.outputs[0] in self._constants or node.outputs[0] in self._sizes:
                continue
            is_plain = all(name in plain for name in node.inputs)
            (first if is_plain else then).append(node)
            if is_plain:
                plain.update(node.outputs)
        return first + then

    def _blocks(self) -> _Run | None:
        """The repetition that spares the most nodes."""
        signatures = self._signatures()
        best, spared = None, _LEAST_SPARED * len(self._body)
        for period in _periods(signatures):
            for start, stop in _repeats(signatures, period):
                if stop - start > spared:
                    run = self._cut(start, stop + period, period)
                    if run is not None and run.period * (run.count - 1) > spared:
                        best, spared = run, run.period * (run.count - 1)
        return best

    def _cut(self, start: int, stop: int, period: int) -> _Run | None:
        """Where to cut a stretch that repeats: before a product, whose operands TensorRT writes down anyway, so that
        what it would put into one kernel (a sum and the norm behind it) stays in one part; of such places, or of all if
        there is none, where a block hands on the fewest values."""
        runs = (_Run(first, period, (stop - first) // period) for first in range(start, start + period))
        fitting = [run for run in runs if run.count > 1 and self._is_alike(run)]
        return min(
            fitting,
            key=lambda run: (not self._begins_with_product(run), self._handed_on(run), -run.count),
            default=None,
        )

    def _begins_with_product(self, run: _Run) -> bool:
        """Whether the first thing that a block computes is a product with a weight; both may change their shapes."""
        seen: set[str] = set()
        for node in self._body[run.start : run.start + run.period]:
            weights = [name for name in node.inputs if name in seen or self._is_weight(name)]
            if isinstance(node.layer, MatrixMultiply):
                return bool(weights)
            if not isinstance(node.layer, Shuffle):
                return False
            seen.update(node.outputs if weights else ())
        return False

    def _is_weight(self, name: str) -> bool:
        return name in self._constants and self._outside.may(name)

    def _handed_on(self, run: _Run) -> int:
        end = run.start + run.period
        made = (name for node in self._body[run.start : end] for name in node.outputs)
        return sum(any(reader >= end for reader in self._readers[name]) for name in made)

    def _is_alike(self, run: _Run) -> bool:
        """Whether the same nodes read each other in all blocks."""
        for offset in range(run.period):
            for position in range(len(self._body[run.start + offset].inputs)):
                names = [self._body[first + offset].inputs[position] for first in run.firsts]
                made = (self._made_by.get(name, -1) - first for name, first in zip(names, run.firsts))
                if len({max(distance, -1) for distance in made}) > 1:
                    return False
        return True

    def _signatures(self) -> list[int]:
        """Numbers, equal where nodes can stand for each other as far as they themselves say."""
        known: dict[object, int] = {}
        return [known.setdefault(self._signature(node), len(known)) for node in self._body]

    def _signature(self, node: Node) -> object:
        inputs = tuple(self._like(name) for name in node.inputs)
        return node.layer, inputs, tuple(self._network.value(name).spec for name in node.outputs)

    def _like(self, name: str) -> object:
        if name in self._sizes or (name in self._constants and not self._outside.may(name)):
            return name
        return name in self._constants, self._network.value(name).spec

    def _shares(self, run: _Run) -> list[_Share]:
        """What a run's blocks compute for others, and what for caches alone."""
        aside = self._for_caches(run)
        caches = frozenset(
            (offset, index)
            for offset in aside
            for index, name in enumerate(self._body[run.start + offset].outputs)
            if name in self._known_as
        )
        if not caches:
            return [self._share(run, range(run.period))]
        needed = [offset for offset in range(run.period) if offset not in aside]
        # What only moves numbers is done again: TensorRT moves them while it reads, and has not to write them twice.
        copied: set[int] = set()
        for offset in reversed(range(run.period)):
            node = self._body[run.start + offset]
            read = any(reader - run.start in aside | copied for name in node.outputs for reader in self._readers[name])
            moves = isinstance(node.layer, Shuffle | Slice) and node.outputs[0] not in self._known_as
            if read and moves and offset not in aside:
                copied.add(offset)
        of_caches = _Share(tuple(sorted(aside | copied)), caches, beside=True)
        return [self._share(run, needed, of_caches.offsets), of_caches]

    def _for_caches(self, run: _Run) -> set[int]:
        """Offsets of a run's nodes that lead to nothing but outputs in the memory of inputs."""
        found: set[int] = set()

        def is_aside(name: str, first: int) -> bool:
            if name in self._known_as:
                return self._known_as[name] in self._network.shared and not self._readers[name]
            return all(reader - first in found for reader in self._readers[name])

        for offset in reversed(range(run.period)):
            blocks = ((self._body[first + offset], first) for first in run.firsts)
            if all(is_aside(name, first) for node, first in blocks for name in node.outputs):
                found.add(offset)
        return found

    def _share(self, run: _Run, offsets: Sequence[int], beside: Sequence[int] = ()) -> _Share:
        """A share of nodes, which gives what is read outside of it: by those `beside` it, too."""
        apart = {name for offset in beside for name in self._body[run.start + offset].outputs}

        def leaves(first: int, offset: int, index: int) -> bool:
            name = self._body[first + offset].outputs[index]
            readers = [reader - first for reader in self._readers[name]]
            has_copy = self._body[run.start + offset].outputs[index] in apart
            read_beside = not has_copy and any(reader in beside for reader in readers)
            return name in self._known_as or read_beside or any(not 0 <= reader < run.period for reader in readers)

        given = (
            (offset, index)
            for offset in offsets
            for index in range(len(self._body[run.start + offset].outputs))
            if any(leaves(first, offset, index) for first in run.firsts)
        )
        return _Share(tuple(offsets), frozenset(given))

    def _part(self, run: _Run, share: _Share) -> tuple[Network, list[dict[str, str]]]:
        """A share of the first of a run's blocks as a network, and what its tensors are in each of them."""
        made = Network(self._network.name, literals=self._network.literals)
        within = {name for offset in share.offsets for name in self._body[run.start + offset].outputs}
        inside: list[Node] = []
        inputs: dict[tuple[str, ...], str] = {}

        def taken(names: tuple[str, ...]) -> str:
            """What the network calls a value of its first block; `names` in all blocks."""
            first = names[0]
            if first in within:
                return first
            if first in self._sizes or (first in self._constants and not self._goes_outside(names)):
                take_in(first)
                return first
            if names not in inputs:
                given = [self._outside.name(name) if name in self._constants else self._whole(name) for name in names]
                inputs[names] = free_name(given[0], made.inputs)
                made.input(inputs[names], self._network.value(first).spec)
                for tensors, name in zip(calls, given):
                    tensors[inputs[names]] = name
            return inputs[names]

        def take_in(name: str) -> None:
            node = self._constants.get(name) or self._sizes[name]
            if node not in inside:
                read = tuple(taken((each,) * run.count) for each in node.inputs)
                inside.append(evolve(node, inputs=read))

        calls: list[dict[str, str]] = [{} for _ in run.firsts]
        body: list[Node] = []
        for offset in share.offsets:
            alike = [self._body[first + offset].inputs for first in run.firsts]
            body.append(evolve(self._body[run.start + offset], inputs=tuple(taken(names) for names in zip(*alike))))
        for node in (*inside, *body):
            made.append(node, tuple(self._network.value(name).spec for name in node.outputs))
        for offset, index in sorted(share.given):
            given = [self._whole(self._body[first + offset].outputs[index]) for first in run.firsts]
            value = self._body[run.start + offset].outputs[index]
            made.output(given[0], made.value(value), inputs.get(self._shared(given)))
            for tensors, name in zip(calls, given):
                tensors[given[0]] = name
        return made, calls

    def _goes_outside(self, names: Sequence[str]) -> bool:
        """Whether a constant of each block is bound when the engine is loaded."""
        differs = any(self._outside.weight(name) != self._outside.weight(names[0]) for name in names)
        return differs or self._outside.should(names[0])

    def _whole(self, name: str) -> str:
        """The name that a value has as a tensor of the whole network."""
        return self._known_as.get(name, name)

    def _shared(self, outputs: Sequence[str]) -> tuple[str, ...]:
        """The inputs whose memory outputs use; of an output that uses none, its own name."""
        return tuple(self._network.shared.get(name, name) for name in outputs)


def _periods(signatures: Sequence[int]) -> list[int]:
    """Distances between nodes and their next likes, the most frequent first."""
    last: dict[int, int] = {}
    found: Counter[int] = Counter()
    for index, signature in enumerate(signatures):
        if signature in last:
            found[index - last[signature]] += 1
        last[signature] = index
    return [period for period, _ in found.most_common(_MOST_PERIODS)]


def _repeats(signatures: Sequence[int], period: int) -> Iterator[tuple[int, int]]:
    """The stretches, of a period at least, in which each node has its like a period later."""
    start = 0
    for index in range(len(signatures) - period + 1):
        ends = index == len(signatures) - period or signatures[index] != signatures[index + period]
        if ends:
            if index - start >= period:
                yield start, index
            start = index + 1
