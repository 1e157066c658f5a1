"""Common subexpression elimination: merge equal layers with equal inputs."""

from __future__ import annotations

from typing import ClassVar

from attrs import frozen
from typing_extensions import override

from ditto.network.graph import Network
from ditto.network.layer import Layer
from ditto.passes.network_pass import NetworkPass, PassResult, Rewriter


@frozen
class CommonSubexpressions(NetworkPass):
    """Keeps the first of several equal layers with equal inputs.

    Two outputs of the network remain two values, because an engine cannot bind one tensor under two names.
    """

    name: ClassVar[str] = "common subexpressions"

    @override
    def run(self, network: Network) -> PassResult:
        net, outputs = Rewriter.of(network), {*network.outputs.values()}
        known: dict[tuple[Layer, tuple[str, ...]], tuple[str, ...]] = {}
        for node in network.nodes:
            key = node.layer, tuple(value.name for value in net.inputs(node))
            first = known.setdefault(key, node.outputs)
            both_given = any({*pair} <= outputs for pair in zip(node.outputs, first, strict=True))
            if first == node.outputs or both_given:
                net.copy(node)
                continue
            net.values.update((name, net.values[same]) for name, same in zip(node.outputs, first, strict=True))
            outputs.update(same for name, same in zip(node.outputs, first, strict=True) if name in outputs)
            net.applied += 1
        return net.result()
