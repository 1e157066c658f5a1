"""Dequantisation of small integers."""

from __future__ import annotations

from typing import Any

import torch
from attrs import frozen
from torch import Tensor
from typing_extensions import override

from ditto.errors import ShapeError
from ditto.network.layer import Emitter, Layer
from ditto.network.spec import INT4, Spec


@frozen
class Dequantize(Layer):
    """values [rows, columns] times scales: one for each row, or one for each row and group of columns.

    Values are int4 or int8, scales floating [rows] or [rows, groups]; the result has the dtype of the scales. The
    product is rounded once.

    TensorRT: IDequantizeLayer. Before a matrix multiplication TensorRT keeps int4 and int8 constants as they are in the
    engine.
    """

    @override
    def infer(self, values: Spec, scales: Spec) -> Spec:
        if values.dtype not in (INT4, torch.int8):
            raise ShapeError(f"needs int4 or int8 values, got {values}")
        (rows, columns), sizes = values.of_rank(2).shape, scales.floating().of_rank(1, 2).shape
        groups = sizes[1] if scales.rank == 2 else 1
        if not isinstance(columns, int) or not isinstance(groups, int) or sizes[0] != rows or columns % groups:
            raise ShapeError(f"scales {scales} do not fit {values}")
        if values.dtype == INT4 and columns % 2:
            raise ShapeError(f"int4 values share bytes, so rows need an even number of them, got {values}")
        return Spec(values.shape, scales.dtype)

    @override
    def reference(self, values: Tensor, scales: Tensor) -> Tensor:
        rows, columns = values.shape
        by_group = scales.reshape(rows, -1, 1)
        wide = values.view(torch.int8).reshape(rows, by_group.shape[1], -1)
        return (wide.float() * by_group.float()).to(scales.dtype).reshape(rows, columns)

    @override
    def emit(self, to: Emitter, values: Any, scales: Any) -> Any:
        layer = to.made(to.net.add_dequantize(values, scales, scales.dtype))
        shape, by_group = tuple(values.shape), tuple(scales.shape)
        if len(by_group) == 1:
            layer.axis = 0
        elif values.dtype == to.trt.DataType.INT8:  # of int4 values TensorRT infers it
            layer.block_shape = to.trt.Dims([1, shape[1] // by_group[1]])
        return layer.get_output(0)
