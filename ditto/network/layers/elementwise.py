"""Elementwise layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from attrs import frozen
from torch import Tensor
from typing_extensions import override

from ditto.errors import ShapeError
from ditto.network.layer import Emitter, Layer
from ditto.network.spec import Spec, broadcast, same_dtype

ElementWiseOp = Literal[
    "SUM", "PROD", "MAX", "MIN", "SUB", "DIV", "POW", "FLOOR_DIV", "AND", "OR", "XOR", "EQUAL", "GREATER", "LESS"
]
UnaryOp = Literal["EXP", "LOG", "SQRT", "RECIP", "ABS", "NEG", "SIN", "COS", "FLOOR", "CEIL", "ERF", "NOT"]
ActivationFunction = Literal["RELU", "SIGMOID", "TANH", "GELU_ERF", "GELU_TANH"]


def _divide(x: Tensor, y: Tensor) -> Tensor:
    return x / y if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")


_BINARY: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "SUM": torch.add,
    "PROD": torch.mul,
    "MAX": torch.maximum,
    "MIN": torch.minimum,
    "SUB": torch.sub,
    "DIV": _divide,
    "POW": torch.pow,
    "FLOOR_DIV": torch.floor_divide,
    "AND": torch.logical_and,
    "OR": torch.logical_or,
    "XOR": torch.logical_xor,
    "EQUAL": torch.eq,
    "GREATER": torch.gt,
    "LESS": torch.lt,
}
_UNARY: Mapping[str, Callable[[Tensor], Tensor]] = {
    "EXP": torch.exp,
    "LOG": torch.log,
    "SQRT": torch.sqrt,
    "RECIP": torch.reciprocal,
    "ABS": torch.abs,
    "NEG": torch.neg,
    "SIN": torch.sin,
    "COS": torch.cos,
    "FLOOR": torch.floor,
    "CEIL": torch.ceil,
    "ERF": torch.erf,
    "NOT": torch.logical_not,
}
_ACTIVATION: Mapping[str, Callable[[Tensor], Tensor]] = {
    "RELU": torch.relu,
    "SIGMOID": torch.sigmoid,
    "TANH": torch.tanh,
    "GELU_ERF": torch.nn.functional.gelu,
    "GELU_TANH": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
}


@frozen
class Cast(Layer):
    """Conversion to another dtype. TensorRT: ICastLayer."""

    dtype: torch.dtype

    @override
    def infer(self, x: Spec) -> Spec:
        return x.with_dtype(self.dtype)

    @override
    def reference(self, x: Tensor) -> Tensor:
        return x.to(self.dtype)

    @override
    def emit(self, to: Emitter, x: Any) -> Any:
        return to.made(to.net.add_cast(x, to.dtype(self.dtype))).get_output(0)


@frozen
class ElementWise(Layer):
    """Binary `op` of two tensors of equal rank and dtype, broadcast.

    EQUAL, GREATER and LESS return bool; AND, OR and XOR need bool operands; DIV of integers rounds toward zero.
    TensorRT: IElementWiseLayer.
    """

    op: ElementWiseOp

    @override
    def infer(self, x: Spec, y: Spec) -> Spec:
        dtype = same_dtype(x, y)
        if self.op in ("AND", "OR", "XOR") and dtype != torch.bool:
            raise ShapeError(f"{self.op} needs bool tensors, got {x} and {y}")
        if self.op not in ("AND", "OR", "XOR", "EQUAL") and dtype == torch.bool:
            raise ShapeError(f"{self.op} of bool tensors, got {x} and {y}")
        compared = self.op in ("EQUAL", "GREATER", "LESS")
        return Spec(broadcast(x.shape, y.shape), torch.bool if compared else dtype)

    @override
    def reference(self, x: Tensor, y: Tensor) -> Tensor:
        return _BINARY[self.op](x, y)

    @override
    def emit(self, to: Emitter, x: Any, y: Any) -> Any:
        op = getattr(to.trt.ElementWiseOperation, self.op)
        return to.made(to.net.add_elementwise(x, y, op)).get_output(0)


@frozen
class Unary(Layer):
    """Unary `op` of every element. TensorRT: IUnaryLayer.

    Dtypes are floating, bool for NOT, floating or integer for ABS and NEG.
    """

    op: UnaryOp

    @override
    def infer(self, x: Spec) -> Spec:
        if self.op == "NOT":
            if x.dtype != torch.bool:
                raise ShapeError(f"NOT needs a bool tensor, got {x}")
            return x
        return x if self.op in ("ABS", "NEG") and x.dtype != torch.bool else x.floating()

    @override
    def reference(self, x: Tensor) -> Tensor:
        return _UNARY[self.op](x)

    @override
    def emit(self, to: Emitter, x: Any) -> Any:
        return to.made(to.net.add_unary(x, getattr(to.trt.UnaryOperation, self.op))).get_output(0)


@frozen
class Activation(Layer):
    """Activation function of every element; floating dtypes. TensorRT: IActivationLayer."""

    function: ActivationFunction

    @override
    def infer(self, x: Spec) -> Spec:
        return x.floating()

    @override
    def reference(self, x: Tensor) -> Tensor:
        return _ACTIVATION[self.function](x)

    @override
    def emit(self, to: Emitter, x: Any) -> Any:
        return to.made(to.net.add_activation(x, getattr(to.trt.ActivationType, self.function))).get_output(0)


@frozen
class Select(Layer):
    """`x` where `condition` is true, else `y`; equal ranks, broadcast. TensorRT: ISelectLayer."""

    @override
    def infer(self, condition: Spec, x: Spec, y: Spec) -> Spec:
        if condition.dtype != torch.bool:
            raise ShapeError(f"the condition needs to be bool, got {condition}")
        return Spec(broadcast(condition.shape, x.shape, y.shape), same_dtype(x, y))

    @override
    def reference(self, condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return torch.where(condition, x, y)

    @override
    def emit(self, to: Emitter, condition: Any, x: Any, y: Any) -> Any:
        return to.made(to.net.add_select(condition, x, y)).get_output(0)


ELEMENTWISE: tuple[type[Layer], ...] = (Activation, Cast, ElementWise, Select, Unary)
"""The elementwise layer classes."""
