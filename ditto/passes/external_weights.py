"""External weights: the weights that are inputs of an engine, and their names."""

from __future__ import annotations

import math
from collections.abc import Container, Sequence

from ditto.network.graph import Network
from ditto.network.layers import Constant, Convolution
from ditto.network.weight import Stored, Weight, leaves

# Matrices and tables are inputs. Vectors (norms, biases) are small, and each would be one more input.
LEAST_BYTES = 64 * 1024
# Tensors of a weight whose names are part of its input's name; of more, the first and the last are.
_MOST_NAMED = 8


class ExternalWeights:
    """The constants of a network that are bound as inputs when its engine is loaded, each with a unique name.

    Constants computed from checkpoint tensors should be external from `least_bytes` on, smaller ones may be. Kernels of
    convolutions stay embedded, because TensorRT transforms their layout at build time.
    """

    def __init__(self, network: Network, least_bytes: float = LEAST_BYTES) -> None:
        self._least_bytes = least_bytes
        self._weights = {
            node.outputs[0]: node.layer.weight for node in network.nodes if isinstance(node.layer, Constant)
        }
        self._stay = {name for node in network.nodes if isinstance(node.layer, Convolution) for name in node.inputs}
        self._stay.update(network.outputs.values())
        self._taken = {*network.inputs, *network.outputs, *(name for node in network.nodes for name in node.outputs)}
        self.names: dict[str, str] = {}

    def may_be_external(self, value: str) -> bool:
        """Whether a constant can be an external weight."""
        stored = any(isinstance(leaf, Stored) for leaf in leaves(self._weights[value]))
        return stored and value not in self._stay

    def should_be_external(self, value: str) -> bool:
        """Whether a constant is large enough that it should be an external weight."""
        weight = self._weights[value]
        return self.may_be_external(value) and math.prod(weight.shape) * weight.dtype.itemsize >= self._least_bytes

    def weight(self, value: str) -> Weight:
        """The weight of a constant."""
        return self._weights[value]

    def name(self, value: str) -> str:
        """Mark a constant as an external weight, and return its input name."""
        if value not in self.names:
            self.names[value] = free_name(input_name(self._weights[value]), self._taken)
            self._taken.add(self.names[value])
        return self.names[value]


def input_name(weight: Weight) -> str:
    """The input name of a weight: the name of its checkpoint tensor.

    The names of several tensors are merged: `layers.0.self_attn.{q_proj,k_proj,v_proj}.weight`.
    """
    names = dict.fromkeys(leaf.name for leaf in leaves(weight) if isinstance(leaf, Stored))
    paths = [name.split(".") for name in names]
    start = _common_length(paths)
    tails = [path[start:] for path in paths]
    end = _common_length([tail[::-1] for tail in tails])
    if not any(len(tail) > end for tail in tails):
        return ".".join(paths[0])
    kinds = [".".join(tail[: len(tail) - end]) for tail in tails]
    middle = ",".join(kinds if len(kinds) <= _MOST_NAMED else [kinds[0], "...", kinds[-1]])
    return ".".join([*paths[0][:start], f"{{{middle}}}", *tails[0][len(tails[0]) - end :]])


def _common_length(paths: Sequence[Sequence[str]]) -> int:
    """The number of leading parts that all paths share."""
    differ = (index for index, parts in enumerate(zip(*paths)) if len(set(parts)) > 1)
    return next(differ, min(len(path) for path in paths))


def free_name(name: str, taken: Container[str]) -> str:
    """`name`, with a numeric suffix if it is taken."""
    number, free = 1, name
    while free in taken:  # a tensor that is used in two forms, e.g. as stored and transposed
        number += 1
        free = f"{name}#{number}"
    return free
