"""A plugin layer asks the registry for its creator and hands over every field with its width."""

from __future__ import annotations

from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from attrs import frozen
from typing_extensions import override

from ditto.errors import BuildError
from ditto.network.plugin import Plugin, PluginField


@frozen
class _Twice(Plugin):
    creator: ClassVar[str] = "Twice"
    layer_name: ClassVar[str] = "twice"
    namespace: ClassVar[str] = "test"

    factor: float

    @override
    def fields(self):
        return (PluginField("factor", "float32", (self.factor,)), PluginField("flags", "int8", (1, 0)))

    @override
    def infer(self, x):
        return x

    @override
    def reference(self, x):
        return x * self.factor


class _Registry:
    """The part of TensorRT that a plugin talks to, after its own Python interface."""

    def __init__(self, known=("Twice", "1", "test"), accepts=True):
        self.known, self.accepts, self.fields, self.added = known, accepts, None, None

    def get_plugin_creator(self, *wanted):
        return SimpleNamespace(create_plugin=self._create) if wanted == self.known else None

    def _create(self, name, fields):
        self.fields = (name, fields)
        return "the plugin" if self.accepts else None

    def emitter(self):
        def added(inputs, plugin):
            self.added = (inputs, plugin)
            return SimpleNamespace(get_output=lambda index: f"output {index}")

        trt = SimpleNamespace(
            get_plugin_registry=lambda: self,
            PluginField=lambda name, data, kind: (name, data, kind),
            PluginFieldType=SimpleNamespace(INT8="INT8", INT32="INT32", FLOAT32="FLOAT32"),
            PluginFieldCollection=list,
        )
        return SimpleNamespace(trt=trt, net=SimpleNamespace(add_plugin_v2=added), made=lambda layer: layer)


def test_fields_arrive_under_their_names_with_their_widths():
    registry = _Registry()
    assert _Twice(2.0).emit(registry.emitter(), "x") == "output 0"
    assert registry.added == (["x"], "the plugin")
    name, fields = registry.fields
    assert name == "twice"
    assert [(field, data.dtype, data.tolist(), kind) for field, data, kind in fields] == [
        ("factor", np.float32, [2.0], "FLOAT32"),
        ("flags", np.int8, [1, 0], "INT8"),
    ]


def test_a_library_without_the_creator_is_named():
    with pytest.raises(BuildError, match="the plugin library has no Twice, version 1, in test"):
        _Twice(2.0).emit(_Registry(known=("Twice", "2", "test")).emitter(), "x")


def test_a_creator_that_refuses_is_named():
    with pytest.raises(BuildError, match="the plugin library refuses the fields of Twice"):
        _Twice(2.0).emit(_Registry(accepts=False).emitter(), "x")
