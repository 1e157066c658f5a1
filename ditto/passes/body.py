"""Body of a network: the layers that are partitioned into segments."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import torch
from attrs import frozen

from ditto.network.graph import Network, Node
from ditto.network.layers import Constant, Shape
from ditto.passes.external_weights import ExternalWeights


@frozen
class Body:
    """All layers except constants and size computations, which are copied into each segment that reads them.

    Layers that do not depend on weights, such as masks, come first, so that they are computed once for all blocks.

    Args:
        network: the whole network.
        external: its external weights, which are inputs of segments.
        nodes: the body, in order.
        constants, sizes: the nodes outside of the body, by the names of their values.
        given: the names of the network's outputs, by the names of their values.
        index: the index of the node that computes a value.
        readers: the indices of the nodes that read a value.
    """

    network: Network
    external: ExternalWeights
    nodes: tuple[Node, ...]
    constants: Mapping[str, Node]
    sizes: Mapping[str, Node]
    given: Mapping[str, str]
    index: Mapping[str, int]
    readers: Mapping[str, list[int]]

    @staticmethod
    def of(network: Network, external: ExternalWeights) -> Body:
        """The body of a network."""
        given = {value: name for name, value in network.outputs.items()}
        of_kind = (node for node in network.nodes if isinstance(node.layer, Constant))
        constants = {node.outputs[0]: node for node in of_kind if node.outputs[0] not in given}
        sizes = size_nodes(network)
        nodes = _in_order(network, external, constants, sizes)
        readers: dict[str, list[int]] = defaultdict(list)
        for index, node in enumerate(nodes):
            for name in node.inputs:
                readers[name].append(index)
        index = {name: index for index, node in enumerate(nodes) for name in node.outputs}
        return Body(network, external, nodes, constants, sizes, given, index, readers)

    def is_weight(self, name: str) -> bool:
        """Whether a value is a constant that can be an external weight."""
        return name in self.constants and self.external.may_be_external(name)

    def whole_name(self, name: str) -> str:
        """The name of a value as a tensor of the whole network."""
        return self.given.get(name, name)


def size_nodes(network: Network) -> dict[str, Node]:
    """Nodes that compute sizes from the shapes of inputs, by value name, without the network's outputs."""
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


def _in_order(
    network: Network, external: ExternalWeights, constants: Mapping[str, Node], sizes: Mapping[str, Node]
) -> tuple[Node, ...]:
    plain = {*network.inputs, *sizes} - {*network.shared.values()}
    plain.update(name for name in constants if not external.may_be_external(name))
    first: list[Node] = []
    then: list[Node] = []
    for node in network.nodes:
        if node.outputs[0] in constants or node.outputs[0] in sizes:
            continue
        is_plain = plain.issuperset(node.inputs)
        (first if is_plain else then).append(node)
        if is_plain:
            plain.update(node.outputs)
    return (*first, *then)
