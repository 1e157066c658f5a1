"""Lowering of aten and Ditto operators to layers."""

from ditto.lowering import activations, arithmetic, experts, indexing, linear, norms, reductions, resizing, shapes
from ditto.lowering.lower import Lowering, Operand, lower
from ditto.lowering.registry import Table, lowers, table

__all__ = [
    "Lowering",
    "Operand",
    "Table",
    "activations",
    "arithmetic",
    "experts",
    "indexing",
    "linear",
    "lower",
    "lowers",
    "norms",
    "reductions",
    "resizing",
    "shapes",
    "table",
]
