"""Networks on disk: `network.json`, and `network.safetensors` with the literals.

The files hold references to weights, not the weights. They load without transformers, and with other versions of torch
and TensorRT than those that wrote them.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Union

import torch
from attrs import frozen
from cattrs import Converter, transform_error
from cattrs.errors import BaseValidationError
from cattrs.strategies import configure_tagged_union
from cattrs.v import format_exception
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ditto.errors import DittoError, Place, TreeError
from ditto.files import check_regular, read_json
from ditto.network import dims
from ditto.network.check import check
from ditto.network.dims import Dim
from ditto.network.graph import Network, Node
from ditto.network.layer import Layer
from ditto.network.quantized import QuantizedWeight
from ditto.network.spec import Spec, dtype_named
from ditto.network.weight import FOLDABLE, Folded, Literal, Literals, Stored, Weight
from ditto.strict import strict_converter

FORMAT = 1
_PARTS = ("values", "scales", "zeros", "groups", "offsets")


@frozen
class _NodeFile:
    layer: Layer
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    module: str = ""
    source: str = ""


@frozen
class _NetworkFile:
    format: int
    name: str
    inputs: dict[str, Spec]
    nodes: tuple[_NodeFile, ...]
    outputs: dict[str, str]
    shared: dict[str, str]


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _dim(value: object) -> Dim:
    return value if isinstance(value, int) else dims.parse(str(value))


def _operand_out(operand: Any) -> Any:
    if isinstance(operand, Weight):
        return {"weight": _weight_out(operand)}
    if isinstance(operand, torch.dtype):
        return {"dtype": _dtype_name(operand)}
    return [_operand_out(item) for item in operand] if isinstance(operand, tuple) else operand


def _operand_in(operand: Any) -> Any:
    if isinstance(operand, dict):
        return _weight_in(operand["weight"]) if "weight" in operand else dtype_named(operand["dtype"])
    return tuple(_operand_in(item) for item in operand) if isinstance(operand, list) else operand


def _weight_out(weight: Weight) -> dict[str, Any]:
    known = {"shape": list(weight.shape), "dtype": _dtype_name(weight.dtype)}
    if isinstance(weight, Stored):
        return {"stored": weight.name, **known}
    if isinstance(weight, Literal):
        return {"literal": weight.digest, **known}
    if isinstance(weight, QuantizedWeight):
        parts = {name: part for name in _PARTS if (part := getattr(weight, name)) is not None}
        operands = {name: _weight_out(part) for name, part in parts.items()}
        return {"quantized": operands, "bits": weight.bits, "block": list(weight.block), **known}
    assert isinstance(weight, Folded)
    return {"folded": weight.op, "operands": _operand_out(weight.operands), **known}


def _weight_in(data: dict[str, Any]) -> Weight:
    shape, dtype = tuple(data["shape"]), dtype_named(data["dtype"])
    if "stored" in data:
        return Stored(data["stored"], shape, dtype)
    if "literal" in data:
        return Literal(data["literal"], shape, dtype)
    if "quantized" in data:
        parts = {name: data["quantized"].get(name) for name in _PARTS}
        operands = {name: part and _weight_in(part) for name, part in parts.items()}
        return QuantizedWeight(**operands, bits=data["bits"], block=tuple(data["block"]), shape=shape, dtype=dtype)
    if data["folded"] not in FOLDABLE:
        raise ValueError(f"{data['folded']!r} is not a foldable operator")
    return Folded(data["folded"], _operand_in(data["operands"]), shape, dtype)


def _converter() -> Converter:
    """The converter of network files, for all layer classes defined so far: targets define their own."""
    return _converter_for(tuple(_kinds(Layer).values()))


def _kinds(cls: type[Layer]) -> dict[str, type[Layer]]:
    """The subclasses of a class, by name.

    Of two classes with the same name the later one counts: attrs creates a slotted class anew, and the original exists
    until the next garbage collection.
    """
    found: dict[str, type[Layer]] = {}
    for kind in cls.__subclasses__():
        found.update({f"{kind.__module__}.{kind.__qualname__}": kind, **_kinds(kind)})
    return found


@cache
def _converter_for(kinds: tuple[type[Layer], ...]) -> Converter:
    converter = strict_converter()
    converter.register_unstructure_hook(torch.dtype, _dtype_name)
    converter.register_structure_hook(torch.dtype, lambda name, _: dtype_named(name))
    converter.register_unstructure_hook(Spec, str)
    converter.register_structure_hook(Spec, lambda text, _: Spec.parse(str(text)))
    converter.register_unstructure_hook(Dim, lambda dim: dim if isinstance(dim, int) else str(dim))
    converter.register_structure_hook(Dim, lambda value, _: _dim(value))
    converter.register_unstructure_hook(Weight, _weight_out)
    converter.register_structure_hook(Weight, lambda data, _: _weight_in(data))
    # Not cattrs's `include_subclasses`: it runs a garbage collection, which is slower than writing or reading a file.
    any_kind: Any = Union[kinds]
    configure_tagged_union(any_kind, converter, tag_name="kind")
    converter.register_unstructure_hook_func(
        lambda cls: cls is Layer, lambda layer: converter.unstructure(layer, unstructure_as=any_kind)
    )
    converter.register_structure_hook_func(
        lambda cls: cls is Layer, lambda data, _: converter.structure(data, any_kind)
    )
    return converter


def save(network: Network, json_path: Path, literals_path: Path) -> None:
    """Write a network's two files."""
    nodes = tuple(
        _NodeFile(node.layer, node.inputs, node.outputs, node.place.module, node.place.source) for node in network.nodes
    )
    content = _NetworkFile(FORMAT, network.name, network.inputs, nodes, network.outputs, network.shared)
    data = _converter().unstructure(content)
    head = {key: data[key] for key in data if key != "nodes"}
    lines = ",\n  ".join(json.dumps(node, separators=(",", ":")) for node in data["nodes"])
    text = json.dumps({**head, "nodes": "@"}, indent=1).replace('"@"', f"[\n  {lines}\n ]")
    json_path.write_text(text + "\n", encoding="utf-8")
    used = _literal_digests(network)
    save_file({name: tensor for name, tensor in network.literals.tensors.items() if name in used}, literals_path)


def _literal_digests(network: Network) -> set[str]:
    from ditto.network.weight import leaves

    found = (leaf for constant in network.constants() for leaf in leaves(constant.weight))
    return {leaf.digest for leaf in found if isinstance(leaf, Literal)}


def _fault(error: BaseException, kind: type | None) -> str:
    """cattrs's message for an error, or the error's own message if that is more specific."""
    if isinstance(error, KeyError):
        return f"{error} is missing or unknown"
    message = format_exception(error, kind)
    return str(error) if isinstance(error, ValueError) or message.startswith("unknown error") else message


def load(json_path: Path, literals_path: Path) -> Network:
    """Read a network and check it.

    Raises:
        TreeError: a file is missing, damaged, or of another format; the error lists all faults of the file.
    """
    remedy = "build the tree again"
    try:
        data = read_json(json_path)
    except (OSError, ValueError) as error:
        raise TreeError(f"cannot read the network: {error}", where=str(json_path), remedy=remedy) from error
    try:
        check_regular(literals_path)
        literals = load_file(literals_path)
    except (OSError, SafetensorError) as error:
        raise TreeError(f"cannot read the literals: {error}", where=str(literals_path), remedy=remedy) from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        found = data.get("format") if isinstance(data, dict) else None
        raise TreeError(f"the network has format {found}, not {FORMAT}", where=str(json_path), remedy=remedy)
    try:
        content = _converter().structure(data, _NetworkFile)
    except BaseValidationError as error:
        faults = "; ".join(transform_error(error, format_exception=_fault)[:5])
        raise TreeError(f"the network file is damaged: {faults}", where=str(json_path), remedy=remedy) from error
    network = Network(content.name, literals=Literals(literals))
    try:
        for name, spec in content.inputs.items():
            network.input(name, spec)
        for node in content.nodes:
            inferred = node.layer.infer(*(network.value(name).spec for name in node.inputs))
            specs = inferred if isinstance(inferred, tuple) else (inferred,)
            place = Place(node.module, node.source)
            network.append(Node(node.layer, node.inputs, node.outputs, place), specs)
        network.outputs.update(content.outputs)
        network.shared.update(content.shared)
        check(network)
    except (DittoError, LookupError, ArithmeticError, TypeError, ValueError, RecursionError) as error:
        raise TreeError(f"the network file is damaged: {error}", where=str(json_path), remedy=remedy) from error
    return network
