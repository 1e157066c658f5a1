"""Constant folding: operators on weights, computed when a weight is resolved instead of at run time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch._ops import OpOverload

from ditto.network.weight import Weight, fold

aten = torch.ops.aten


def _cast(x: Weight, dtype: torch.dtype, *_: Any) -> Weight:
    return x if x.dtype == dtype else fold("cast", x, dtype)


def _view(x: Weight, sizes: list[int]) -> Weight:
    return fold("reshape", x, tuple(sizes))


def _unsqueeze(x: Weight, axis: int) -> Weight:
    axis %= len(x.shape) + 1
    return fold("reshape", x, (*x.shape[:axis], 1, *x.shape[axis:]))


def _squeeze(x: Weight, axis: int) -> Weight:
    axis %= len(x.shape)
    return fold("reshape", x, (*x.shape[:axis], *x.shape[axis + 1 :])) if x.shape[axis] == 1 else x


def _transpose(x: Weight, first: int, second: int) -> Weight:
    axes = list(range(len(x.shape)))
    axes[first], axes[second] = axes[second], axes[first]
    return fold("permute", x, tuple(axes))


def _permute(x: Weight, axes: list[int]) -> Weight:
    return fold("permute", x, tuple(axis % len(x.shape) for axis in axes))


def _reversed(x: Weight) -> Weight:
    return fold("permute", x, tuple(reversed(range(len(x.shape)))))


def _expand(x: Weight, sizes: list[int], **_: Any) -> Weight:
    return fold("expand", x, tuple(sizes))


def _slice(x: Weight, axis: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Weight:
    axis %= len(x.shape)
    first, stop, _ = slice(start, end).indices(x.shape[axis])
    return fold("slice", x, axis, first, stop, step)


def _cat(parts: list[Weight], axis: int = 0) -> Weight:
    axis %= len(parts[0].shape)
    dtype = fold("concatenate", tuple(parts), axis).dtype
    return fold("concatenate", tuple(_cast(part, dtype) for part in parts), axis)


def _embedding(x: Weight, indices: Weight, *_: Any) -> Weight:
    return fold("rows", x, indices)


def _scaled(x: Any, factor: float) -> Any:
    if factor == 1:
        return x
    return fold("multiply", x, factor) if isinstance(x, Weight) else x * factor


_FOLDS: Mapping[OpOverload, Callable[..., Weight]] = {
    aten.to.dtype: _cast,
    aten.view.default: _view,
    aten.reshape.default: _view,
    aten.squeeze.dim: _squeeze,
    aten.unsqueeze.default: _unsqueeze,
    aten.transpose.int: _transpose,
    aten.permute.default: _permute,
    aten.t.default: _reversed,
    aten.numpy_T.default: _reversed,
    aten.expand.default: _expand,
    aten.slice.Tensor: _slice,
    aten.cat.default: _cat,
    aten.embedding.default: _embedding,
    aten.add.Tensor: lambda x, y, alpha=1: fold("add", x, _scaled(y, alpha)),
    aten.sub.Tensor: lambda x, y, alpha=1: fold("subtract", x, _scaled(y, alpha)),
    aten.mul.Tensor: lambda x, y: fold("multiply", x, y),
    aten.div.Tensor: lambda x, y: fold("divide", x, y),
    aten.neg.default: lambda x: fold("negate", x),
    aten.exp.default: lambda x: fold("exponential", x),
    aten.sqrt.default: lambda x: fold("square_root", x),
}


def fold_call(operator: OpOverload, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Weight | None:
    """The result of an operator as a weight, if its tensors are weights and its numbers are static, else None."""
    if operator not in _FOLDS or not _constant([*args, *kwargs.values()]):
        return None
    if not any(isinstance(leaf, Weight) for leaf in _leaves(args)):
        return None
    return _FOLDS[operator](*args, **kwargs)


def _leaves(operands: Any) -> list[Any]:
    if isinstance(operands, (list, tuple)):
        return [leaf for operand in operands for leaf in _leaves(operand)]
    return [operands]


def _constant(operands: Any) -> bool:
    allowed = (Weight, int, float, bool, torch.dtype, type(None))
    return all(isinstance(leaf, allowed) for leaf in _leaves(operands))
