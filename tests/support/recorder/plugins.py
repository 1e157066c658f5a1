"""The plugin library: creators by name, strict about fields and inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from attrs import frozen

from ditto.network.plugin import PluginField as Stated
from tests.support.conformance.plugins import FieldValues, repeated
from tests.support.conformance.rules import Scope
from tests.support.conformance.tables import Tables
from tests.support.recorder.definition import Refusal, Tensor

_WIDTHS = {"int8": np.int8, "int32": np.int32, "float32": np.float32}
_DTYPES = {
    "float32": "FLOAT",
    "float16": "HALF",
    "bfloat16": "BF16",
    "int64": "INT64",
    "int32": "INT32",
    "int8": "INT8",
    "bool": "BOOL",
    "float8_e4m3fn": "FP8",
}


@frozen
class PluginField:
    """`tensorrt.PluginField`: name, numbers, their type."""

    name: str
    data: Any
    type: Any


@frozen
class Plugin:
    """`IPluginV2`: what a creator made.

    Args:
        name: of the layer.
        row: of the tables.
        fields: by name.
        data_types: TensorRT's enumeration.
    """

    name: str
    row: dict[str, Any]
    fields: dict[str, Stated]
    data_types: Any

    def scope(self, sets: dict[str, Any]) -> Scope:
        """What the tables' expressions mean of this plugin."""
        values = dict(sets)
        if "type_id" in self.fields:
            numbers = {number: name for name, number in sets["type_ids"].items()}
            dtype = numbers[int(self.fields["type_id"].values[0])]
            values.update(attention_dtype=dtype, gemm_dtype=dtype)
        return Scope({**values, "field": FieldValues(self.fields)}, self.row["names"], strict=True)


@frozen
class Creator:
    """`IPluginCreator`."""

    row: dict[str, Any]
    sets: dict[str, Any]
    trt: Any

    def create_plugin(self, name: str, collection: Sequence[PluginField]) -> Any:
        """A plugin, or None and a refusal where a field is missing, unknown, or of another type or length."""
        fields = {field.name: self._stated(field) for field in collection}
        made = Plugin(name, self.row, fields, self.trt.DataType)
        try:
            rows = repeated(self.row["fields"], made.scope(self.sets) if "type_id" in fields else Scope({}))
            wanted = {row["name"]: row for row in rows}
            for missing in [name for name in wanted if name not in fields]:
                raise Refusal(f"{self.row['creator']} misses field {missing}")
            for field_name, field in fields.items():
                self._check(field_name, field, wanted, made)
        except Refusal as error:
            self.trt.refusals.append(str(error))
            return None
        return RecordedPlugin(made, self.sets)

    def _check(self, name: str, field: Stated, wanted: dict[str, Any], made: Plugin) -> None:
        if name not in wanted:
            raise Refusal(f"{self.row['creator']} has no field {name}")
        if field.type != wanted[name]["type"]:
            raise Refusal(f"{self.row['creator']} reads {name} as {wanted[name]['type']}, it is {field.type}")
        length = wanted[name].get("length", "1")
        if length != "any" and len(field.values) != made.scope(self.sets).evaluate(length):
            raise Refusal(f"{self.row['creator']} reads another number of {name} than {len(field.values)}")

    def _stated(self, field: PluginField) -> Stated:
        """As the library reads it: the stated type has to be that of the numbers."""
        kind = {"INT8": "int8", "INT32": "int32", "FLOAT32": "float32"}[field.type.name]
        if field.data.dtype != _WIDTHS[kind]:
            kind = str(field.data.dtype)
        return Stated(field.name, kind, tuple(field.data.tolist()))  # type: ignore[arg-type]


@frozen
class RecordedPlugin:
    """A plugin in a network."""

    made: Plugin
    sets: dict[str, Any]

    def outputs(self, inputs: Sequence[Tensor], network_inputs: Sequence[Tensor]) -> list[tuple[Any, Any]]:
        """dtype and shape rule of each output.

        Raises:
            Refusal: the inputs are not those that the plugin takes under its fields.
        """
        row, scope = self.made.row, self.made.scope(self.sets)
        rows = repeated(row["inputs"], scope)
        if len(inputs) != len(rows):
            raise Refusal(f"{row['creator']} takes {len(rows)} inputs under these fields, not {len(inputs)}")
        for entry, tensor in zip(rows, inputs, strict=True):
            dtype = scope.size(entry["dtype"])
            if dtype is not None and tensor.dtype.name != _DTYPES[dtype]:
                raise Refusal(f"{row['creator']} takes {entry['name']} as {dtype}, not {tensor.dtype.name}")
            if entry["memory"] == "host" and tensor not in network_inputs:
                raise Refusal(f"{row['creator']} reads {entry['name']} on the host, where no layer writes")
        known = scope.having(**{entry["name"]: tensor for entry, tensor in zip(rows, inputs, strict=True)})
        made: list[tuple[Any, Any]] = []
        for entry in repeated(row["outputs"], scope):
            dtype = scope.size(entry["dtype"])
            kind = inputs[0].dtype if dtype is None else self.made.data_types[_DTYPES[dtype]]
            sizes = entry["shape"]
            made.append((kind, lambda _, sizes=sizes: tuple(known.size(size) for size in sizes)))
        return made


@frozen
class Registry:
    """`IPluginRegistry` after the plugin library is loaded."""

    tables: Tables
    trt: Any

    def get_plugin_creator(self, name: str, version: str, namespace: str = "") -> Creator | None:
        """The creator, None for none."""
        row = self.tables.plugin(name)
        if row is None or (version, namespace) != (row["version"], row["namespace"]):
            return None
        return Creator(row, self.tables.data["sets"], self.trt)
