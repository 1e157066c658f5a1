"""Summary of a tree for display; needs no GPU, weights or TensorRT."""

from __future__ import annotations

from typing import Any

from attrs import asdict, frozen

from ditto.engine import Component, EngineTree, Manifest
from ditto.errors import TreeError
from ditto.files import read_json
from ditto.network import Network
from ditto.network.layers import Constant
from ditto.network.quantized import bytes_by_kind
from ditto.network.text import layer_text
from ditto.runtime.memory import engine_bytes
from ditto.runtime.weights import network_of

# Configuration keys that change a model's results or sizes; shown where the tree states them.
_FACTS = (
    "architectures",
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_size",
    "intermediate_size",
    "hidden_act",
    "rms_norm_eps",
    "layer_norm_eps",
    "max_position_embeddings",
    "rope_theta",
    "rope_parameters",
    "rope_scaling",
    "sliding_window",
    "layer_types",
    "query_pre_attn_scalar",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "vision_feature_layer",
    "vision_feature_select_strategy",
)


@frozen(kw_only=True)
class LayerRow:
    """Description of one engine layer.

    Args:
        name: name of the first output.
        layer: kind and fields, as in a network's text form.
        inputs: tensor names; for a constant, its weight expression.
        outputs: output specs.
        module, source: origin in the user's model.
    """

    name: str
    layer: str
    inputs: list[str]
    outputs: list[str]
    module: str
    source: str


@frozen(kw_only=True)
class EngineReport:
    """Description of one engine; sizes are in bytes.

    Args:
        record: the manifest's entry.
        engine_bytes: size of the engine files, 0 until they are compiled.
        constant_bytes: size of its weights, embedded or external.
        weight_kinds: the same by kind of weight, the largest first.
        layers: all layers but constants, in execution order.
    """

    record: Component
    engine_bytes: int
    constant_bytes: int
    weight_kinds: dict[str, int]
    layers: list[LayerRow]


@frozen(kw_only=True)
class TreeReport:
    """Description of a tree: manifest, model configuration and engines."""

    root: str
    manifest: Manifest
    facts: dict[str, Any]
    engines: dict[str, EngineReport]


def inspect(tree: EngineTree) -> TreeReport:
    """Describe a tree.

    Raises:
        TreeError: a file of the tree cannot be read.
    """
    engines = {name: _engine(tree, name) for name in tree.manifest.components}
    return TreeReport(root=str(tree.root), manifest=tree.manifest, facts=_facts(tree), engines=engines)


def _engine(tree: EngineTree, name: str) -> EngineReport:
    record, network = tree.component(name), network_of(tree, name)
    kinds = bytes_by_kind(constant.weight for constant in network.constants())
    return EngineReport(
        record=record,
        engine_bytes=engine_bytes(tree, name),
        constant_bytes=sum(kinds.values()),
        weight_kinds=kinds,
        layers=_rows(network),
    )


def _rows(network: Network) -> list[LayerRow]:
    weights = {node.outputs[0]: str(node.layer.weight) for node in network.nodes if isinstance(node.layer, Constant)}
    return [
        LayerRow(
            name=node.outputs[0],
            layer=layer_text(node.layer),
            inputs=[weights.get(name, name) for name in node.inputs],
            outputs=[str(network.value(name).spec) for name in node.outputs],
            module=node.place.module,
            source=node.place.source,
        )
        for node in network.nodes
        if not isinstance(node.layer, Constant)
    ]


def _facts(tree: EngineTree) -> dict[str, Any]:
    """Configuration values from the manifest and from Hugging Face's config.json, if the tree has it."""
    stated: dict[str, Any] = {}
    if tree.processor_directory is not None and (tree.processor_directory / "config.json").is_file():
        path = tree.processor_directory / "config.json"
        try:
            model = read_json(path, lenient=True)
        except (OSError, ValueError) as error:
            raise TreeError(f"cannot read the model's configuration: {error}", where=str(path)) from error
        parts = [model, model.get("text_config")] if isinstance(model, dict) else []
        stated = {name: value for part in parts if isinstance(part, dict) for name, value in part.items()}
    if tree.manifest.decoder is not None:
        stated.update(asdict(tree.manifest.decoder))
    return {name: stated[name] for name in _FACTS if stated.get(name) is not None}
