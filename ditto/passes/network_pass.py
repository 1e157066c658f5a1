"""Base classes of passes, which rewrite a network without changing its results."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from attrs import define, evolve, field, frozen
from typing_extensions import override

from ditto.network.builder import NetworkBuilder
from ditto.network.graph import Network, Node, Value
from ditto.network.layer import Layer
from ditto.refusals import Refusal


@frozen
class PassResult:
    """The result of a pass.

    Args:
        network: the rewritten network.
        applied: number of times that the pass applied.
        refused: places where the pass could have applied but did not, with reasons.
    """

    network: Network
    applied: int
    refused: tuple[Refusal, ...] = ()


@frozen
class NetworkPass(ABC):
    """A rewrite of a network; its fields are its parameters."""

    name: ClassVar[str]
    """Name in logs and dumps."""

    @abstractmethod
    def run(self, network: Network) -> PassResult:
        """Return a rewritten copy of a network."""


@define
class Rewriter(NetworkBuilder):
    """Builds a new network from an old one, node by node.

    Args:
        network: the new network.
        old: the old network.
        values: the new values of its inputs and of the nodes copied or replaced so far, by their old names.
    """

    old: Network
    values: dict[str, Value] = field(factory=dict)
    applied: int = 0
    refused: list[Refusal] = field(factory=list)
    _readers: dict[str, list[Node]] | None = None

    @staticmethod
    def of(old: Network) -> Rewriter:
        """A rewriter of `old` that has not processed any node yet."""
        network = old.successor()
        return Rewriter(network, old, {name: network.value(name) for name in old.inputs})

    def inputs(self, node: Node) -> tuple[Value, ...]:
        """The new values of an old node's inputs."""
        return tuple(self.values[name] for name in node.inputs)

    def readers(self, name: str) -> list[Node]:
        """The old nodes that read an old value."""
        if self._readers is None:
            self._readers = {}
            for node in self.old.nodes:
                for read in dict.fromkeys(node.inputs):
                    self._readers.setdefault(read, []).append(node)
        return self._readers.get(name, [])

    def copy(self, node: Node) -> None:
        """Append an old node; its outputs keep their names."""
        inputs = tuple(value.name for value in self.inputs(node))
        copied = node if inputs == node.inputs else evolve(node, inputs=inputs)
        values = self.network.append(copied, tuple(self.old.value(name).spec for name in node.outputs))
        self.values.update(zip(node.outputs, values, strict=True))

    def refuse(self, node: Node, reason: str) -> None:
        """Record why the pass does not apply to a node."""
        self.refused.append(Refusal(node.place, reason))

    def result(self) -> PassResult:
        """The new network, with the outputs of the old one."""
        for name, value in self.old.outputs.items():
            self.network.output(name, self.values[value], self.old.shared.get(name))
        return PassResult(self.network, self.applied, tuple(self.refused))


@frozen
class NodePass(NetworkPass):
    """A pass that replaces single nodes by equivalent ones."""

    kinds: ClassVar[tuple[type[Layer], ...]]
    """The layer classes that the pass may replace."""

    @abstractmethod
    def replacement(self, net: Rewriter, node: Node) -> Value | None:
        """Add layers that replace a node with a single output, and return their output; None keeps the node.

        The nodes before it have already been copied or replaced.
        """

    @override
    def run(self, network: Network) -> PassResult:
        net = Rewriter.of(network)
        for node in network.nodes:
            value = None
            if isinstance(node.layer, self.kinds):
                with net.network.placed(node.place):
                    value = self.replacement(net, node)
            if value is None:
                net.copy(node)
            else:
                net.values[node.outputs[0]] = value
                net.applied += 1
        return net.result()
