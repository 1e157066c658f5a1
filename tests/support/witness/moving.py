"""Meaning of layers that move elements or speak of shapes."""

from __future__ import annotations

import tensorrt_rtx as trt
import torch
from torch import Tensor

from tests.support.witness.reading import DTYPES, Reading


def _permuted(layer: Reading, x: Tensor, name: str) -> Tensor:
    """trt.Permutation always has eight entries, of which the first `rank` count."""
    order = tuple(layer.get(name))[: x.dim()]
    if sorted(order) != list(range(x.dim())):
        layer.fail(f"{name} {order} is not a permutation of {list(x.shape)}")
    return x.permute(order)


def shuffle(layer: Reading) -> Tensor:
    """IShuffleLayer: transpose, reshape, transpose. Sizes come from input 1 if that is set. 0 copies the size of the
    same axis after the first transpose, unless `zero_is_placeholder` is off; one -1 takes what is left."""
    x = _permuted(layer, layer.input(0), "first_transpose")
    static, dynamic, copies = layer.get("reshape_dims"), layer.optional(1), layer.get("zero_is_placeholder")
    sizes = x.shape if static is None else tuple(static)
    if dynamic is not None:
        sizes = dynamic.tolist()
    if static is not None or dynamic is not None:
        x = x.reshape([x.shape[axis] if size == 0 and copies else size for axis, size in enumerate(sizes)])
    return _permuted(layer, x, "second_transpose")


def slice_(layer: Reading) -> Tensor:
    """ISliceLayer: element i of an axis is element start + i * stride of the input. Inputs 1 to 3 replace the static
    start, size and stride. In FILL mode, elements outside of the input are 0, if no input 4 says otherwise."""
    x = layer.input(0)
    fills = layer.get("mode") == trt.SampleMode.FILL
    if not fills:
        layer.expect("mode", trt.SampleMode.STRICT_BOUNDS)
    layer.expect("axes", None)
    static = [layer.get(name) for name in ("start", "shape", "stride")]
    dynamic = [layer.optional(index) for index in (1, 2, 3)]
    start, size, stride = (
        tuple(have) if given is None else given.tolist() for have, given in zip(static, dynamic, strict=True)
    )
    if not len(start) == len(size) == len(stride) == x.dim():
        layer.fail(f"start {start}, size {size} and stride {stride} of {list(x.shape)}")
    for axis, (first, count, step) in enumerate(zip(start, size, stride, strict=True)):
        places = first + step * torch.arange(count)
        if fills:
            outside = (places < 0) | (places >= x.shape[axis])
            x = x.index_select(axis, places.masked_fill(outside, 0)).index_fill(axis, outside.nonzero()[:, 0], 0)
            continue
        layer.within(places, x.shape[axis])
        x = x.index_select(axis, places)
    return x


def gather(layer: Reading) -> Tensor:
    """IGatherLayer, default mode: ONNX's Gather. With `num_elementwise_dims` 1, each row of the data is gathered with
    its own row of the indices. Indices from 0 to size - 1."""
    data, indices = layer.input(0), layer.input(1)
    axis, elementwise = layer.get("axis"), layer.get("num_elementwise_dims")
    layer.expect("mode", trt.GatherMode.DEFAULT)
    if not elementwise <= axis < data.dim() or indices.dtype not in (torch.int32, torch.int64):
        layer.fail(f"axis {axis} with {elementwise} elementwise of {list(data.shape)} by {indices.dtype}")
    layer.within(indices, data.shape[axis])
    if elementwise == 0:
        return _gathered(data, indices, axis)
    if elementwise == 1 and data.shape[0] == indices.shape[0]:
        return torch.stack([_gathered(row, own, axis - 1) for row, own in zip(data, indices, strict=True)])
    return layer.fail(f"{elementwise} elementwise axes of {list(data.shape)} and {list(indices.shape)}")


def _gathered(data: Tensor, indices: Tensor, axis: int) -> Tensor:
    taken = data.index_select(axis, indices.flatten())
    return taken.reshape(data.shape[:axis] + indices.shape + data.shape[axis + 1 :])


def concatenation(layer: Reading) -> Tensor:
    """IConcatenationLayer."""
    tensors = [layer.input(index) for index in range(layer.thing.num_inputs)]
    layer.alike(*tensors, rank=True)
    return torch.cat(tensors, layer.get("axis"))


def shape(layer: Reading) -> Tensor:
    """IShapeLayer."""
    return torch.tensor(layer.input(0).shape, dtype=torch.int64)


def fill(layer: Reading) -> Tensor:
    """IFillLayer, LINSPACE: alpha + beta * index, with one beta per axis. Size, alpha and beta from inputs 0 to 2, or
    from the properties; those show -1 where an input is set."""
    layer.expect("operation", trt.FillOperation.LINSPACE)
    dtype = DTYPES[layer.get("to_type")]
    given_size, given_alpha, given_beta = (layer.optional(index) for index in range(3))
    static_size, static_alpha, static_beta = (layer.get(name) for name in ("shape", "alpha", "beta"))
    layer.alike(given_alpha, given_beta)
    size = tuple(static_size) if given_size is None else given_size.tolist()
    alpha = torch.tensor(static_alpha, dtype=dtype) if given_alpha is None else given_alpha
    beta = torch.tensor([static_beta], dtype=dtype) if given_beta is None else given_beta
    if alpha.dtype != dtype or alpha.dim() or tuple(beta.shape) != (len(size),):
        layer.fail(f"fills {size} of {dtype} with {alpha.dtype} {list(alpha.shape)}, {list(beta.shape)}")
    filled = alpha.expand(size)
    for axis, count in enumerate(size):
        along = [-1 if other == axis else 1 for other in range(len(size))]
        filled = filled + (beta[axis] * torch.arange(count, dtype=dtype)).reshape(along)
    return filled
