"""Dead layer elimination."""

from __future__ import annotations

from typing import ClassVar

from attrs import frozen
from typing_extensions import override

from ditto.network.graph import Network
from ditto.passes.network_pass import NetworkPass, PassResult, Rewriter


@frozen
class DeadLayers(NetworkPass):
    """Drops the layers that no output depends on; unused inputs stay, as part of the engine's interface."""

    name: ClassVar[str] = "dead layers"

    @override
    def run(self, network: Network) -> PassResult:
        needed = {*network.outputs.values()}
        for node in reversed(network.nodes):
            if needed.intersection(node.outputs):
                needed.update(node.inputs)
        net = Rewriter.of(network)
        for node in network.nodes:
            if needed.intersection(node.outputs):
                net.copy(node)
            else:
                net.applied += 1
        return net.result()
