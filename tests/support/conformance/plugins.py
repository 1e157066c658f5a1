"""The plugins of a network against their rows: creator, fields, inputs, outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from attrs import define

from ditto.network import DimExpr, Network, Node, Spec
from ditto.network.layers import Constant
from ditto.network.plugin import Plugin, PluginField
from tests.support.conformance.contents import CONTENTS, constant_tensor
from tests.support.conformance.networks import dtype_name
from tests.support.conformance.rules import Scope, Undefined, Violation, violation
from tests.support.conformance.tables import Tables


class FieldValues:
    """A plugin's fields in an expression: `field.num_heads`."""

    def __init__(self, fields: Mapping[str, PluginField]) -> None:
        self._fields = fields

    def __getattr__(self, name: str) -> Any:
        if name not in self._fields or len(self._fields[name].values) != 1:
            raise Undefined(f"field.{name}")
        return self._fields[name].values[0]


def repeated(rows: list[dict[str, Any]], scope: Scope) -> list[dict[str, Any]]:
    """Rows of a plugin under its fields: those whose condition holds, `repeat` ones once for each number."""
    found: list[dict[str, Any]] = []
    for row in rows:
        if not scope.holds(row.get("when", "True")):
            continue
        if "repeat" in row:
            found += [{**row, "name": row["name"].format(index)} for index in range(scope.evaluate(row["repeat"]))]
        else:
            found.append(row)
    return found


@define
class PluginCheck:
    """All plugins of a network.

    Args:
        where: the file.
        tables: of the version.
        network: what is checked.
        scope: of the tree.
    """

    where: str
    tables: Tables
    network: Network
    scope: Scope

    def run(self) -> Iterator[Violation]:
        """All violations."""
        placed: dict[str, list[Node]] = {row["creator"]: [] for row in self.tables.data["plugins"]}
        absent = self.tables.data["native_layers"]
        for node in self.network.nodes:
            kind = type(node.layer).__name__
            if kind in absent["absent"]:
                yield violation(f"{self.where}: {node.outputs[0]}", f"is a {kind}, which TensorRT 10.9 has not", absent)
            if not isinstance(node.layer, Plugin):
                continue
            if node.layer.creator not in placed:
                library = {"source": "LLM 3"}
                yield violation(f"{self.where}: {node.outputs[0]}", f"has no creator {node.layer.creator}", library)
            else:
                placed[node.layer.creator].append(node)
        for row in self.tables.data["plugins"]:
            yield from self._kind(row, placed[row["creator"]])

    def _kind(self, row: dict[str, Any], nodes: list[Node]) -> Iterator[Violation]:
        where = f"{self.where}: {row['creator']}"
        on = row["key"] is None or self.scope.holds(f"plugin.{row['key']} is not None")
        if nodes and not on:
            yield violation(where, f"is used and plugin_config.{row['key']} is null", row)
            return
        if on and row.get("count") and self.scope.having(count=len(nodes)).breaks(row["count"]):
            yield violation(where, f"is placed {len(nodes)} times, which breaks `{row['count']}`", row)
        for node in nodes:
            assert isinstance(node.layer, Plugin)
            yield from self._node(f"{where} {node.outputs[0]}", row, node, node.layer)
        name = row.get("once_each")
        if name:
            numbers = [_fields(node.layer)[name].values[0] for node in nodes if name in _fields(node.layer)]
            if numbers != list(range(len(numbers))):
                yield violation(where, f"has {name} {numbers}, not each once in order", row)

    def _node(self, where: str, row: dict[str, Any], node: Node, layer: Plugin) -> Iterator[Violation]:
        for name in ("layer_name", "version", "namespace"):
            if (found := getattr(layer, name)) != row[name]:
                yield violation(where, f"has {name} {found!r}, not {row[name]!r}", row)
        fields = _fields(layer)
        scope = self.scope.having(row["names"], field=FieldValues(fields))
        broken = list(self._fields(where, row, layer, repeated(row["fields"], scope), scope))
        yield from broken
        if broken:  # what the plugin takes follows from its fields
            return
        inputs = repeated(row["inputs"], scope)
        specs = [self.network.value(name).spec for name in node.inputs]
        if len(specs) != len(inputs):
            wanted = ", ".join(entry["name"] for entry in inputs)
            yield violation(where, f"has {len(specs)} inputs, not {len(inputs)}: {wanted}", row)
            return
        scope = scope.having(**{entry["name"]: spec for entry, spec in zip(inputs, specs, strict=True)})
        for position, entry in enumerate(inputs):
            yield from self._input(f"{where}, input {position} {entry['name']},", entry, node, position, scope)
        outputs = repeated(row["outputs"], scope)
        made = [self.network.value(name).spec for name in node.outputs]
        if len(made) != len(outputs):
            yield violation(where, f"has {len(made)} outputs, not {len(outputs)}", row)
            return
        for entry, spec in zip(outputs, made, strict=True):
            yield from _spec(f"{where}, output {entry['name']},", entry, spec, scope)

    def _fields(
        self, where: str, row: dict[str, Any], layer: Plugin, rows: list[dict[str, Any]], scope: Scope
    ) -> Iterator[Violation]:
        found = layer.fields()
        names, wanted = [field.name for field in found], [entry["name"] for entry in rows]
        for name in names:
            if name not in wanted or names.count(name) > 1:
                yield violation(f"{where}, field {name},", "is no field of the creator", row)
        if sorted(names) == sorted(wanted) and names != wanted:
            place = next(place for place, pair in enumerate(zip(names, wanted, strict=True)) if pair[0] != pair[1])
            problem = f"come in another order: {names[place]} where {wanted[place]} is due"
            yield violation(f"{where}, fields", problem, row)
        by_name = {field.name: field for field in found}
        for entry in rows:
            place = f"{where}, field {entry['name']},"
            if entry["name"] not in by_name:
                yield violation(place, "is missing", entry)
                continue
            field = by_name[entry["name"]]
            if field.type != entry["type"]:
                yield violation(place, f"is {field.type}, not {entry['type']}", entry)
            length = entry.get("length", "1")
            if length != "any" and len(field.values) != scope.evaluate(length):
                yield violation(place, f"has {len(field.values)} values, not {scope.evaluate(length)}", entry)
            for value in field.values if "test" in entry and len(names) == len(wanted) else ():
                if scope.having(value=value).breaks(entry["test"]):
                    yield violation(place, f"is {value}, which breaks `{entry['test']}`", entry)

    def _input(self, where: str, row: dict[str, Any], node: Node, position: int, scope: Scope) -> Iterator[Violation]:
        value = self.network.value(node.inputs[position])
        producer = self.network.producer(value)
        if row["origin"] == "input" and value.name != row["name"]:
            yield violation(where, f"is given {value.name}", row)
        elif row["origin"] == "constant" and not (producer and isinstance(producer.layer, Constant)):
            yield violation(where, f"is given {value.name}, which is no constant", row)
        elif row["origin"] == "layer" and producer is None:
            yield violation(where, f"is given {value.name}, an input of the network", row)
        else:
            broken = list(_spec(where, row, value.spec, scope))
            yield from broken
            if not broken and row["name"] in CONTENTS and producer and isinstance(producer.layer, Constant):
                tensor = constant_tensor(self.network, producer.layer)
                for problem in CONTENTS[row["name"]](tensor, scope):
                    yield violation(where, problem, row)


def _fields(layer: Any) -> dict[str, PluginField]:
    return {field.name: field for field in layer.fields()}


def _spec(where: str, row: Mapping[str, Any], spec: Spec, scope: Scope) -> Iterator[Violation]:
    """dtype and shape; an entry None stands for any size, no shape for any."""
    dtype = scope.size(row["dtype"])
    shape = None if row.get("shape") is None else [scope.size(entry) for entry in row["shape"]]
    if dtype is not None and dtype_name(spec) != dtype:
        yield violation(where, f"is {dtype_name(spec)}, not {dtype}", row)
    if shape is None:
        return
    fits = len(shape) == len(spec.shape) and all(
        want is None or want == have for want, have in zip(shape, spec.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        have = ", ".join(str(dim) if isinstance(dim, (int, DimExpr)) else "?" for dim in spec.shape)
        yield violation(where, f"is [{have}], not [{wanted}]", row)
