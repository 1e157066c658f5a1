"""A network without its plugins."""

from __future__ import annotations

from ditto.network import Network
from ditto.network.plugin import Plugin


def cut(network: Network) -> Network:
    """The network with every plugin taken out: its outputs become inputs, its inputs outputs.

    Inputs of the network that only plugins read stay inputs, and literals are shared.
    """
    made = Network(network.name, literals=network.literals)
    for name, spec in network.inputs.items():
        made.input(name, spec)
    wanted = dict(network.outputs)
    for node in network.nodes:
        specs = tuple(network.value(name).spec for name in node.outputs)
        if isinstance(node.layer, Plugin):
            for name, spec in zip(node.outputs, specs, strict=True):
                made.input(name, spec)
            wanted.update({name: name for name in node.inputs if name not in network.inputs})
        else:
            made.append(node, specs)
    made.outputs.update(wanted)
    return made
