"""Intermediate representation of a network: typed values, TensorRT layers, references to weights."""

from ditto.network.check import check
from ditto.network.dims import Dim, DimExpr, symbol
from ditto.network.files import load, save
from ditto.network.graph import Network, Node, Value
from ditto.network.layer import Emitter, Layer
from ditto.network.spec import Spec
from ditto.network.text import network_text
from ditto.network.weight import Literals, TensorSource, Weight, resolve

__all__ = [
    "Dim",
    "DimExpr",
    "Emitter",
    "Layer",
    "Literals",
    "Network",
    "Node",
    "Spec",
    "TensorSource",
    "Value",
    "Weight",
    "check",
    "load",
    "network_text",
    "resolve",
    "save",
    "symbol",
]
