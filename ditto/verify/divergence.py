"""Locate where a network diverges from its model.

Compares values of the network with the inputs and outputs of the model's modules.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from attrs import define, field, frozen
from torch import Tensor

from ditto.engine import IMAGE_TOKENS
from ditto.network import Network
from ditto.network.graph import Node
from ditto.network.layers import Constant
from ditto.reference import relative_error, severity
from ditto.verify.reference_outputs import Seen

# A single module's rounding varies more than that of a whole model.
_TIMES_OWN_ERROR = 3.0
_ROWS_AT_ONCE = 512


@frozen
class Divergence:
    """The first value of a network that diverges from the model.

    Args:
        component: `vision`, `llm`, or `decode` (one token with a KV cache).
        value: name of the value; begins with the path of the module that computes it.
        layer: kind of the layer that computes it.
        module, source: module path and source line of the layer in the model.
        port: role of the value in the model, e.g. "the output of `model.norm`".
        relative_error, allowed: relative to Hugging Face in float32.
    """

    component: str
    value: str
    layer: str
    module: str
    source: str
    port: str
    relative_error: float
    allowed: float


@define
class _Port:
    """One input or output of a module, with candidate network values and errors."""

    text: str
    exact: Tensor
    own: Tensor
    errors: dict[str, float] = field(factory=dict)

    @property
    def best(self) -> str:
        return min(self.errors, key=lambda name: severity(self.errors[name]))


class Divergences:
    """Comparison of a network's values with a model's modules, as computed.

    A value that enters a module's layers from outside is a candidate for the module's input; one that its layers
    compute and other layers use is a candidate for its output. Among candidates of the right size, the nearest counts,
    because rewrites move and fuse layers. Inputs and outputs without a candidate are not compared. Within a tower of
    native size the order of tokens does not count: a wrapper may bring them into that of windows before the model.

    Args:
        component: as in `Divergence`.
        network: the network whose values are compared.
        exact, own: inputs and outputs of the model's modules in float32, and in the network's dtype.
        least: relative error that is always allowed.
    """

    def __init__(
        self, component: str, network: Network, exact: Mapping[str, Seen], own: Mapping[str, Seen], least: float
    ) -> None:
        self._component, self._network, self._least = component, network, least
        self._results = frozenset(network.outputs.values())
        # Then it is a tower of native size, whose values are those of one image.
        self._may_reorder = any(str(size) == IMAGE_TOKENS for spec in network.inputs.values() for size in spec.shape)
        self._order = {name: index for index, node in enumerate(network.nodes) for name in node.outputs}
        self._ports: list[_Port] = []
        self._of_value: dict[str, list[_Port]] = defaultdict(list)
        for path, names in _module_paths(network, exact).items():
            inputs, outputs = _inputs_and_outputs(network, path)
            for role, values in (("output", outputs), ("input", inputs)):
                seen, rounded = getattr(exact[names], role), getattr(own[names], role)
                if seen is not None and rounded is not None:
                    port = _Port(f"the {role} of `{names}`", seen, rounded)
                    self._ports.append(port)
                    for value in values:
                        self._of_value[value].append(port)

    def watch(self, name: str, tensor: Tensor) -> None:
        """Compare a newly computed value."""
        for port in self._of_value.get(name, ()):
            wanted = _matching(port.exact, tensor)
            if wanted is not None:
                found = tensor.to(wanted.device).reshape(wanted.shape)
                error = relative_error(found, wanted)
                if self._may_reorder and name not in self._results and severity(error) > self._allowed(port):
                    error = min(error, _error_in_any_order(found, wanted), key=severity)
                port.errors.setdefault(name, error)

    @property
    def first(self) -> Divergence | None:
        """The first diverging value in the network's order; None if there is none."""
        errors = [(port, severity(port.errors[port.best])) for port in self._ports if port.errors]
        found = [port for port, error in errors if error > self._allowed(port)]
        if not found:
            return None
        port = min(found, key=lambda port: self._order[port.best])
        node = self._network.nodes[self._order[port.best]]
        return Divergence(
            component=self._component,
            value=port.best,
            layer=type(node.layer).__name__,
            module=node.place.module,
            source=node.place.source,
            port=port.text,
            relative_error=port.errors[port.best],
            allowed=self._allowed(port),
        )

    @property
    def compared(self) -> int:
        """Number of module inputs and outputs that were compared."""
        return sum(bool(port.errors) for port in self._ports)

    def _allowed(self, port: _Port) -> float:
        return max(self._least, _TIMES_OWN_ERROR * relative_error(port.own, port.exact))


def _module_paths(network: Network, seen: Mapping[str, Seen]) -> dict[str, str]:
    """The model's path for each module path of the network, outer modules included.

    Wrappers add other prefixes.
    """
    paths: dict[str, None] = {}
    for node in network.nodes:
        parts = node.place.module.split(".")
        paths.update(dict.fromkeys(".".join(parts[: count + 1]) for count in range(len(parts))))
    matched: dict[str, str] = {}
    for path in filter(None, paths):
        for known in (path, path.partition(".")[2]):
            ends = [known] if known in seen else [name for name in seen if known and name.endswith(f".{known}")]
            if len(ends) == 1:
                matched[path] = ends[0]
                break
    return matched


def _inputs_and_outputs(network: Network, path: str) -> tuple[list[str], list[str]]:
    """Input and output values of the layers of a module."""
    inside = {id(node) for node in network.nodes if _within(node, path)}
    produced = {name for node in network.nodes if id(node) in inside for name in node.outputs}
    constants = {name for node in network.nodes if isinstance(node.layer, Constant) for name in node.outputs}
    inputs: dict[str, None] = {}
    used_outside = set(network.outputs.values())
    for node in network.nodes:
        if id(node) in inside:
            inputs.update(dict.fromkeys(name for name in node.inputs if name not in produced and name not in constants))
        else:
            used_outside.update(node.inputs)
    return list(inputs), [
        name for name in _in_order(network) if name in produced & used_outside and name not in constants
    ]


def _in_order(network: Network) -> Iterator[str]:
    return (name for node in network.nodes for name in node.outputs)


def _within(node: Node, path: str) -> bool:
    return node.place.module == path or node.place.module.startswith(f"{path}.")


def _error_in_any_order(found: Tensor, wanted: Tensor) -> float:
    """Relative error of an image's tokens, each compared with the nearest one of the other side.

    Args:
        found, wanted: tokens along the first axis that is longer than 1.
    """
    left, right = (each.detach().float().squeeze() for each in (found, wanted))
    if left.dim() < 2:  # of a single token
        return relative_error(found, wanted)
    left, right = left.flatten(1), right.flatten(1)
    if not (left.isfinite().all() and right.isfinite().all()):
        return math.inf
    return max(relative_error(left, _nearest(left, right)), relative_error(_nearest(right, left), right))


def _nearest(rows: Tensor, others: Tensor) -> Tensor:
    """For each row [n, width], the nearest of others [m, width]."""
    chosen = [torch.cdist(part, others).argmin(1) for part in rows.split(_ROWS_AT_ONCE)]
    return others[torch.cat(chosen)]


def _matching(wanted: Tensor, found: Tensor) -> Any:
    """`wanted`, or its last row, if the size fits `found`; else None.

    The network may keep only the last row.
    """
    if not found.is_floating_point() or not wanted.dim() or not found.dim() or wanted.shape[-1] != found.shape[-1]:
        return None
    if wanted.numel() == found.numel():
        return wanted
    last = wanted[..., -1:, :] if wanted.dim() > 1 else wanted
    return last if last.numel() == found.numel() else None
