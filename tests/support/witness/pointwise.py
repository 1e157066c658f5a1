"""Meaning of layers that compute each element on its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorrt_rtx as trt
import torch
from torch import Tensor

from tests.support.witness.reading import DTYPES, Reading, numbers

_FLOATS = frozenset({torch.float32, torch.float16, torch.bfloat16})
_INTEGERS = frozenset({torch.int64, torch.int32, torch.int8})
_BOOL = frozenset({torch.bool})


def _quotient(x: Tensor, y: Tensor) -> Tensor:
    return x / y if x.dtype in _FLOATS else torch.div(x, y, rounding_mode="trunc")  # integers as in C++


_Binary = Callable[[Tensor, Tensor], Tensor]
_ELEMENTWISE: Mapping[Any, tuple[_Binary, frozenset[torch.dtype]]] = {
    trt.ElementWiseOperation.SUM: (torch.add, _FLOATS | _INTEGERS),
    trt.ElementWiseOperation.PROD: (torch.mul, _FLOATS | _INTEGERS),
    trt.ElementWiseOperation.MAX: (torch.maximum, _FLOATS | _INTEGERS),
    trt.ElementWiseOperation.MIN: (torch.minimum, _FLOATS | _INTEGERS),
    trt.ElementWiseOperation.SUB: (torch.sub, _FLOATS | _INTEGERS),
    trt.ElementWiseOperation.DIV: (_quotient, _FLOATS | _INTEGERS),
    trt.ElementWiseOperation.POW: (torch.pow, _FLOATS),
    trt.ElementWiseOperation.FLOOR_DIV: (lambda x, y: torch.div(x, y, rounding_mode="floor"), _FLOATS | _INTEGERS),
    trt.ElementWiseOperation.AND: (torch.logical_and, _BOOL),
    trt.ElementWiseOperation.OR: (torch.logical_or, _BOOL),
    trt.ElementWiseOperation.XOR: (torch.logical_xor, _BOOL),
    trt.ElementWiseOperation.EQUAL: (torch.eq, _FLOATS | _INTEGERS | _BOOL),
    trt.ElementWiseOperation.GREATER: (torch.gt, _FLOATS | _INTEGERS),
    trt.ElementWiseOperation.LESS: (torch.lt, _FLOATS | _INTEGERS),
}
_UNARY: Mapping[Any, tuple[Callable[[Tensor], Tensor], frozenset[torch.dtype]]] = {
    trt.UnaryOperation.EXP: (torch.exp, _FLOATS),
    trt.UnaryOperation.LOG: (torch.log, _FLOATS),
    trt.UnaryOperation.SQRT: (torch.sqrt, _FLOATS),
    trt.UnaryOperation.RECIP: (torch.reciprocal, _FLOATS),
    trt.UnaryOperation.ABS: (torch.abs, _FLOATS | _INTEGERS),
    trt.UnaryOperation.NEG: (torch.neg, _FLOATS | _INTEGERS),
    trt.UnaryOperation.SIN: (torch.sin, _FLOATS),
    trt.UnaryOperation.COS: (torch.cos, _FLOATS),
    trt.UnaryOperation.CEIL: (torch.ceil, _FLOATS),
    trt.UnaryOperation.FLOOR: (torch.floor, _FLOATS),
    trt.UnaryOperation.ROUND: (torch.round, _FLOATS),
    trt.UnaryOperation.ERF: (torch.erf, _FLOATS),
    trt.UnaryOperation.SIGN: (torch.sign, _FLOATS | _INTEGERS),
    trt.UnaryOperation.NOT: (torch.logical_not, _BOOL),
}
_ACTIVATION: Mapping[Any, Callable[[Tensor], Tensor]] = {
    trt.ActivationType.RELU: torch.relu,
    trt.ActivationType.SIGMOID: torch.sigmoid,
    trt.ActivationType.TANH: torch.tanh,
    trt.ActivationType.GELU_ERF: lambda x: torch.nn.functional.gelu(x, approximate="none"),
    trt.ActivationType.GELU_TANH: lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
}


def constant(layer: Reading) -> Tensor:
    """IConstantLayer."""
    return numbers(layer.get("weights")).reshape(tuple(layer.get("shape")))


def identity(layer: Reading) -> Tensor:
    """IIdentityLayer; in a strongly typed network the dtype stays."""
    return layer.input(0)


def cast(layer: Reading) -> Tensor:
    """ICastLayer; floats lose their fraction on the way to integers."""
    return layer.input(0).to(DTYPES[layer.get("to_type")])


def dequantize(layer: Reading) -> Tensor:
    """IDequantizeLayer: values times the scales of their rows (along axis 0) or of blocks of a row, as TensorRT tells
    them: from the shape of the scales for int4, from `block_shape` for int8."""
    values, scales = layer.input(0), layer.input(1)
    kinds, to_type = (torch.int4, torch.int8), DTYPES[layer.get("to_type")]
    if values.dtype not in kinds or values.dim() != 2 or to_type != scales.dtype:
        layer.fail(f"of {values.dtype}{list(values.shape)} and {scales.dtype} to {to_type}")
    (rows, columns), axis = values.shape, layer.get("axis")
    try:
        block = tuple(layer.get("block_shape"))
    except RuntimeError:  # not set
        block = (1, columns // scales.shape[-1]) if scales.dim() == 2 and values.dtype == torch.int4 else None
    if block is None and (axis, scales.shape) != (0, (rows,)):
        layer.fail(f"has scales {list(scales.shape)} along axis {axis}")
    if block is not None and tuple(size * step for size, step in zip(scales.shape, block)) != (rows, columns):
        layer.fail(f"has blocks {block} with scales {list(scales.shape)}")
    each = scales[:, None] if block is None else scales.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
    return (values.view(torch.int8).double() * each.double()).to(scales.dtype)


def elementwise(layer: Reading) -> Tensor:
    """IElementWiseLayer: equal ranks and dtypes, axes of size 1 are broadcast."""
    x, y, op = layer.input(0), layer.input(1), layer.get("op")
    layer.alike(x, y, rank=True)
    function, dtypes = _ELEMENTWISE.get(op) or layer.fail(f"op {op} is not known to the witness")
    if x.dtype not in dtypes:
        layer.fail(f"{op} of {x.dtype}")
    return function(x, y)


def unary(layer: Reading) -> Tensor:
    """IUnaryLayer."""
    x, op = layer.input(0), layer.get("op")
    function, dtypes = _UNARY.get(op) or layer.fail(f"op {op} is not known to the witness")
    if x.dtype not in dtypes:
        layer.fail(f"{op} of {x.dtype}")
    return function(x)


def activation(layer: Reading) -> Tensor:
    """IActivationLayer; none of the functions known here has an alpha or a beta."""
    x, kind = layer.input(0), layer.get("type")
    function = _ACTIVATION.get(kind) or layer.fail(f"type {kind} is not known to the witness")
    layer.without_meaning("alpha", "beta")
    return function(x)


def select(layer: Reading) -> Tensor:
    """ISelectLayer: condition, then, else; equal ranks, axes of size 1 are broadcast."""
    condition, x, y = (layer.input(index) for index in range(3))
    layer.alike(x, y, rank=True)
    if condition.dtype != torch.bool or condition.dim() != x.dim():
        layer.fail(f"condition {condition.dtype} {list(condition.shape)} of {list(x.shape)}")
    return torch.where(condition, x, y)
