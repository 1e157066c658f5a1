"""TensorRT's shape rules; -1 for a size that is not known."""

from __future__ import annotations

from math import prod
from typing import Any

FLOATING = ("FLOAT", "HALF", "BF16")
Shape = tuple[int, ...]


def broadcast(*shapes: Shape) -> Shape:
    """Per axis the one size that is not 1."""
    if len({len(shape) for shape in shapes}) != 1:
        raise ValueError(f"ranks of {shapes} differ")
    found = []
    for sizes in zip(*shapes, strict=True):
        known = {size for size in sizes if size not in (1, -1)}
        if len(known) > 1:
            raise ValueError(f"{shapes} do not broadcast")
        found.append(known.pop() if known else min(sizes))
    return tuple(found)


def gather(layer: Any) -> Shape:
    x, indices = layer.shape(0), layer.shape(1)
    axis, shared = layer.settings["axis"], layer.settings["num_elementwise_dims"]
    return x[:axis] + indices[shared:] + x[axis + 1 :]


def matrix_multiply(layer: Any) -> Shape:
    x, y = layer.shape(0), layer.shape(1)
    x = x[:-2] + x[:-3:-1] if layer.settings["op0"].name == "TRANSPOSE" else x
    y = y[:-2] + y[:-3:-1] if layer.settings["op1"].name == "TRANSPOSE" else y
    if -1 not in (x[-1], y[-2]) and x[-1] != y[-2]:
        raise ValueError(f"inner sizes of {x} and {y} differ")
    return (*broadcast(x[:-2], y[:-2]), x[-2], y[-1])


def reduce(layer: Any) -> Shape:
    axes, keep = layer.settings["axes"], layer.settings["keep_dims"]
    sizes = [(axis, 1 if axes >> axis & 1 else size) for axis, size in enumerate(layer.shape())]
    return tuple(size for axis, size in sizes if keep or not axes >> axis & 1)


def shuffle(layer: Any) -> Shape:
    shape = _permuted(layer.shape(), layer.settings["first_transpose"])
    if 1 in layer.inputs:
        shape = (-1,) * layer.shape(1)[0]
    elif (wanted := layer.settings["reshape_dims"]) is not None:
        made = [shape[axis] if size == 0 else size for axis, size in enumerate(wanted)]
        inferred = list(wanted).index(-1) if -1 in wanted else None
        # Sizes copied by 0 cancel out, known or not.
        copied = [axis for axis, size in enumerate(wanted) if size == 0]
        before = [size for axis, size in enumerate(shape) if axis not in copied]
        after = [size for axis, size in enumerate(made) if axis not in copied and axis != inferred]
        if -1 not in before:
            rest = prod(before)
            if inferred is None and rest != prod(after):
                raise ValueError(f"{shape} cannot become {wanted}")
            if inferred is not None:
                if rest % max(prod(after), 1):
                    raise ValueError(f"{shape} cannot become {wanted}")
                made[inferred] = rest // prod(after)
        shape = tuple(made)
    return _permuted(shape, layer.settings["second_transpose"])


def _permuted(shape: Shape, axes: Shape | None) -> Shape:
    if axes is None:
        return shape
    if sorted(axes) != list(range(len(shape))):
        raise ValueError(f"{axes} is not a permutation of {shape}")
    return tuple(shape[axis] for axis in axes)


def slice_(layer: Any) -> Shape:
    if 2 in layer.inputs:
        return (-1,) * len(layer.shape())
    start, size, stride = (layer.settings[name] for name in ("start", "shape", "stride"))
    for first, count, step, have in zip(start, size, stride, layer.shape(), strict=True):
        if have != -1 and count and not 0 <= first + (count - 1) * step < have:
            raise ValueError(f"the slice from {start}, {size} by {stride} leaves {layer.shape()}")
    return tuple(size)


def concatenation(layer: Any) -> Shape:
    axis = layer.settings["axis"]
    parts = [layer.shape(index) for index in sorted(layer.inputs)]
    others = [tuple(size for place, size in enumerate(part) if place != axis) for part in parts]
    kept = list(broadcast(*others)) if others[0] else []
    along = [part[axis] for part in parts]
    return tuple(kept[:axis] + [-1 if -1 in along else sum(along)] + kept[axis:])


def convolution(layer: Any) -> Shape:
    batch, _, *sizes = layer.shape()
    names = ("padding_nd", "dilation_nd", "kernel_size_nd", "stride_nd")
    padding, dilation, kernel, stride = (layer.settings[name] for name in names)
    made = [
        (size + 2 * padding[axis] - dilation[axis] * (kernel[axis] - 1) - 1) // stride[axis] + 1
        for axis, size in enumerate(sizes)
    ]
    return (batch, layer.settings["num_output_maps"], *made)
