"""Plugin layers: creator, version, namespace, typed fields, and a reference in PyTorch."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Literal

import numpy as np
from attrs import frozen
from typing_extensions import override

from ditto.errors import BuildError
from ditto.network.layer import Emitter, Layer

FieldType = Literal["int8", "int32", "float32"]
_TENSORRT_FIELD_TYPES = {"int8": "INT8", "int32": "INT32", "float32": "FLOAT32"}


@frozen
class PluginField:
    """A parameter of a plugin: the creator looks it up by name and reads it with the width of its type."""

    name: str
    type: FieldType
    values: tuple[float, ...]


@frozen
class Plugin(Layer):
    """A layer that a plugin creator creates.

    Creators look up their fields by name, and fail if a field is missing or has another width.
    """

    creator: ClassVar[str]
    layer_name: ClassVar[str]
    version: ClassVar[str] = "1"
    namespace: ClassVar[str] = ""

    @abstractmethod
    def fields(self) -> tuple[PluginField, ...]:
        """The creator's fields, in its order."""

    @override
    def emit(self, to: Emitter, *inputs: Any) -> Any:
        registry = to.trt.get_plugin_registry()
        creator = registry.get_plugin_creator(self.creator, self.version, self.namespace)
        if creator is None:
            raise BuildError(
                f"the plugin library has no {self.creator}, version {self.version}, "
                f"in {self.namespace or 'any namespace'}",
                remedy="compile where the library of the tree's TensorRT-LLM version is installed",
            )
        fields = [
            to.trt.PluginField(
                field.name,
                np.array(field.values, dtype=field.type),
                getattr(to.trt.PluginFieldType, _TENSORRT_FIELD_TYPES[field.type]),
            )
            for field in self.fields()
        ]
        plugin = creator.create_plugin(self.layer_name, to.trt.PluginFieldCollection(fields))
        if plugin is None:
            raise BuildError(f"the plugin library refuses the fields of {self.creator}")
        return to.made(to.net.add_plugin_v2(list(inputs), plugin)).get_output(0)
