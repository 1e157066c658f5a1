"""Validation of a complete network, after loading and before emission."""

from __future__ import annotations

from ditto.errors import ShapeError, at
from ditto.network.graph import Network
from ditto.network.layers import Constant
from ditto.network.weight import Literal, leaves


def check(network: Network) -> None:
    """Validate a network.

    Values must be computed before they are used, every layer must infer the specs recorded for its outputs, literals
    must be present, and outputs must exist and match the inputs whose memory they use.

    Raises:
        ShapeError: one of these conditions does not hold.
    """
    computed = set(network.inputs)
    for node in network.nodes:
        with at(node.place):
            missing = [name for name in node.inputs if name not in computed]
            if missing:
                raise ShapeError(f"{node.outputs[0]} uses {', '.join(missing)} before it is made")
            inferred = node.layer.infer(*(network.value(name).spec for name in node.inputs))
            specs = inferred if isinstance(inferred, tuple) else (inferred,)
            recorded = tuple(network.value(name).spec for name in node.outputs)
            if specs != recorded:
                raise ShapeError(f"{node.outputs[0]} is recorded as {recorded[0]}, its layer gives {specs[0]}")
            if isinstance(node.layer, Constant):
                for leaf in leaves(node.layer.weight):
                    if isinstance(leaf, Literal) and leaf.digest not in network.literals.tensors:
                        raise ShapeError(f"{node.outputs[0]} needs {leaf}, which the network does not carry")
        computed.update(node.outputs)
    if not network.outputs:
        raise ShapeError("the network has no output")
    if unknown := network.shared.keys() - network.outputs.keys():
        raise ShapeError(f"{', '.join(sorted(unknown))} would share memory, but is not an output")
    for name, value in network.outputs.items():
        if value not in computed:
            raise ShapeError(f"output {name} is {value}, which nothing makes")
        shares = network.shared.get(name)
        if shares is not None and network.inputs.get(shares) != network.value(value).spec:
            raise ShapeError(f"output {name} cannot use the memory of {shares}")
