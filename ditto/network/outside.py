"""Weights that stay outside an engine: large constants as inputs of the network, bound when the engine is loaded."""

from __future__ import annotations

import math
from collections.abc import Sequence

from attrs import evolve

from ditto.network.graph import Network
from ditto.network.layers import Constant, Convolution
from ditto.network.weight import Stored, Weight, leaves

# Matrices and tables go outside. Vectors (norms, biases) weigh nothing in an engine, and would each be one more input.
LEAST_BYTES = 64 * 1024


def with_weights_outside(network: Network, least_bytes: int = LEAST_BYTES) -> tuple[Network, dict[str, str]]:
    """A network that takes its large weights as inputs.

    Constants of `least_bytes` or more that are made of checkpoint tensors go outside, each under the name that
    `input_name` gives it. Kernels of convolutions stay: TensorRT lays them out while it builds.

    Args:
        network: left as it is.
    Returns:
        The new network, and for each input that is a weight, the name of the constant in `network` whose numbers are
        to be bound to it.
    """
    stay = {name for node in network.nodes if isinstance(node.layer, Convolution) for name in node.inputs}
    stay.update(network.outputs.values())
    taken = {*network.inputs, *network.outputs, *(name for node in network.nodes for name in node.outputs)}
    renamed: dict[str, str] = {}
    for node in network.nodes:
        (value, *_), layer = node.outputs, node.layer
        if isinstance(layer, Constant) and value not in stay and _stored_bytes(layer.weight) >= least_bytes:
            renamed[value] = _free(input_name(layer.weight), taken)
            taken.add(renamed[value])
    made = Network(network.name, literals=network.literals)
    for name, spec in network.inputs.items():
        made.input(name, spec)
    for value, name in renamed.items():
        made.input(name, network.value(value).spec)
    for node in network.nodes:
        if node.outputs[0] not in renamed:
            inputs = tuple(renamed.get(name, name) for name in node.inputs)
            made.append(evolve(node, inputs=inputs), tuple(network.value(name).spec for name in node.outputs))
    made.outputs.update(network.outputs)
    made.shared.update(network.shared)
    return made, {name: value for value, name in renamed.items()}


def input_name(weight: Weight) -> str:
    """The name of a weight as an input: its checkpoint tensor's; where it is made of several, their names with what
    they have in common said once, e.g. `layers.0.self_attn.{q_proj,k_proj,v_proj}.weight`."""
    names = dict.fromkeys(leaf.name for leaf in leaves(weight) if isinstance(leaf, Stored))
    paths = [name.split(".") for name in names]
    start = _alike(paths)
    tails = [path[start:] for path in paths]
    end = _alike([tail[::-1] for tail in tails])
    if not any(len(tail) > end for tail in tails):
        return ".".join(paths[0])
    middle = ",".join(".".join(tail[: len(tail) - end]) for tail in tails)
    return ".".join([*paths[0][:start], f"{{{middle}}}", *tails[0][len(tails[0]) - end :]])


def _alike(paths: Sequence[Sequence[str]]) -> int:
    """How many first parts are the same in all paths."""
    differ = (index for index, parts in enumerate(zip(*paths)) if len(set(parts)) > 1)
    return next(differ, min(len(path) for path in paths))


def _stored_bytes(weight: Weight) -> int:
    """Bytes of a weight that is made of checkpoint tensors, 0 of one that is not."""
    if not any(isinstance(leaf, Stored) for leaf in leaves(weight)):
        return 0
    return math.prod(weight.shape) * weight.dtype.itemsize


def _free(name: str, taken: set[str]) -> str:
    number, free = 1, name
    while free in taken:  # a tensor that is used in two forms, e.g. as it is and transposed
        number += 1
        free = f"{name}#{number}"
    return free
