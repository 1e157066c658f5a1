"""Text form of a network: stable, one line per layer, without addresses, times or versions."""

from __future__ import annotations

import attrs

from ditto.network.graph import Network
from ditto.network.layer import Layer


def layer_text(layer: Layer) -> str:
    """A layer as `Kind(field=value, ...)`, without the fields that have their default value."""
    fields: list[str] = []
    for attribute in attrs.fields(type(layer)):
        value = getattr(layer, attribute.name)
        if value != attribute.default:
            fields.append(f"{attribute.name}={_value_text(value)}")
    return f"{type(layer).__name__}({', '.join(fields)})" if fields else type(layer).__name__


def _value_text(value: object) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(_value_text(item) for item in value)})"
    return str(value).removeprefix("torch.")


def network_text(network: Network) -> str:
    """Inputs, layers in order, and outputs, with the input whose memory an output uses."""
    lines = [f"input %{name}: {spec}" for name, spec in network.inputs.items()]
    for node in network.nodes:
        outputs = ", ".join(f"%{name}: {network.value(name).spec}" for name in node.outputs)
        inputs = "".join(f" %{name}" for name in node.inputs)
        lines.append(f"{outputs} = {layer_text(node.layer)}{inputs}")
    for name, value in network.outputs.items():
        place = f" in %{network.shared[name]}" if name in network.shared else ""
        lines.append(f"output {name} = %{value}{place}")
    return "\n".join(lines) + "\n"
