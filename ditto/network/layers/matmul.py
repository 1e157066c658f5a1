"""Matrix multiplication."""

from __future__ import annotations

from typing import Any

import torch
from attrs import frozen
from torch import Tensor
from typing_extensions import override

from ditto.errors import ShapeError
from ditto.network.layer import Emitter, Layer
from ditto.network.layers.elementwise import Cast
from ditto.network.spec import Spec, broadcast, same_dtype


@frozen
class MatrixMultiply(Layer):
    """x @ y over the last two axes, leading axes broadcast; equal ranks of at least 2, floating dtypes.

    Args:
        transpose_x, transpose_y: swap the last two axes of an operand first.

    float16 products are accumulated in float32, as in PyTorch.

    TensorRT: IMatrixMultiplyLayer. For float16, casts to float32 before it and back after it, which TensorRT fuses into
    the kernel: without them TensorRT-RTX 1.6 accumulates in float16 (error 1.2e-2 instead of 2.2e-3 for four layers of
    Llama-7B).
    """

    transpose_x: bool = False
    transpose_y: bool = False

    @override
    def infer(self, x: Spec, y: Spec) -> Spec:
        dtype = same_dtype(x.floating(), y.floating())
        if x.rank < 2 or x.rank != y.rank:
            raise ShapeError(f"needs equal ranks of at least 2, got {x} and {y}")
        rows, inner = x.shape[-2:] if not self.transpose_x else x.shape[:-3:-1]
        inner_y, columns = y.shape[-2:] if not self.transpose_y else y.shape[:-3:-1]
        if inner != inner_y:
            raise ShapeError(f"inner sizes {inner} and {inner_y} differ in {x} @ {y}")
        return Spec((*broadcast(x.shape[:-2], y.shape[:-2]), rows, columns), dtype)

    @override
    def reference(self, x: Tensor, y: Tensor) -> Tensor:
        x = x.transpose(-1, -2) if self.transpose_x else x
        if self.transpose_y and all(size == 1 for size in y.shape[:-2]):
            return torch.nn.functional.linear(x, y.reshape(y.shape[-2:]))
        return x @ (y.transpose(-1, -2) if self.transpose_y else y)

    @override
    def emit(self, to: Emitter, x: Any, y: Any) -> Any:
        operation = to.trt.MatrixOperation
        half = x.dtype == to.trt.DataType.HALF
        if half:
            x, y = (Cast(torch.float32).emit(to, operand) for operand in (x, y))
        layer = to.net.add_matrix_multiply(
            x,
            operation.TRANSPOSE if self.transpose_x else operation.NONE,
            y,
            operation.TRANSPOSE if self.transpose_y else operation.NONE,
        )
        product = to.made(layer).get_output(0)
        return Cast(torch.float16).emit(to, product) if half else product
