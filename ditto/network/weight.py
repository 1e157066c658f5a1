"""References to constants: a checkpoint tensor, a small literal, or an operator applied to these.

A `Weight` does not hold the checkpoint's data, only a reference to it. `resolve` loads its values from a `TensorSource`
and the network's literals, one weight at a time.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from attrs import field, frozen
from torch import Tensor
from typing_extensions import override

from ditto.errors import ShapeError
from ditto.network.packing import unpack, unpack_e2m1, unpack_halves, unpack_signed
from ditto.network.rounding import group_scales, rounded
from ditto.network.spec import INT4, Spec


class TensorSource(Protocol):
    """Source of the checkpoint's tensors."""

    def tensor(self, name: str) -> Tensor:
        """The tensor with a given name, on the CPU; callers must not write to it."""
        ...

    def release(self) -> None:
        """Free memory whose content can be loaded again."""
        ...


class Weight(ABC):
    """Reference to a constant: `Stored`, `Literal`, `Folded` or `QuantizedWeight`.

    Args:
        shape, dtype: of the constant.
    """

    __slots__ = ()
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    @abstractmethod
    def parts(self) -> tuple[Weight, ...]:
        """The weights that this one is computed from, in order; empty if it is not computed."""

    @property
    @abstractmethod
    def is_view(self) -> bool:
        """Whether the value is a view of the stored tensor, without new memory."""

    @abstractmethod
    def value(self, source: TensorSource, literals: Literals) -> Tensor:
        """Load or compute the tensor; it may be non-contiguous.

        Raises:
            ShapeError: shape or dtype of the source's tensor differ from those in the network.
        """


@frozen
class Stored(Weight):
    """A checkpoint tensor, by its name there; `shape` and `dtype` as stored."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    @override
    def parts(self) -> tuple[Weight, ...]:
        return ()

    @property
    @override
    def is_view(self) -> bool:
        return True

    @override
    def value(self, source: TensorSource, literals: Literals) -> Tensor:
        tensor = source.tensor(self.name)
        if tuple(tensor.shape) != self.shape or tensor.dtype != self.dtype:
            raise ShapeError(
                f"checkpoint tensor `{self.name}` is {Spec.of(tensor)}, the network was described with {spec_of(self)}",
                remedy="build the engines again from this checkpoint",
            )
        return tensor

    @override
    def __str__(self) -> str:
        return self.name


@frozen
class Literal(Weight):
    """A small tensor stored in the network itself, by the digest of its content."""

    digest: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    @override
    def parts(self) -> tuple[Weight, ...]:
        return ()

    @property
    @override
    def is_view(self) -> bool:
        return False

    @override
    def value(self, source: TensorSource, literals: Literals) -> Tensor:
        return literals.tensors[self.digest]

    @override
    def __str__(self) -> str:
        return f"literal {self.digest[:8]}"


@frozen
class Folded(Weight):
    """`FOLDABLE[op]` applied to other weights, computed once when the weight is resolved.

    Args:
        op: a name in `FOLDABLE`.
        operands: weights, numbers, dtypes, and tuples of these, in the function's order.
        shape, dtype: of the result.
    """

    op: str
    operands: tuple[Any, ...]
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    @override
    def parts(self) -> tuple[Weight, ...]:
        found: list[Weight] = []
        _replaced(self.operands, found.append)
        return tuple(found)

    @property
    @override
    def is_view(self) -> bool:
        return self.op == "reshape" and self.operands[0].is_view

    @override
    def value(self, source: TensorSource, literals: Literals) -> Tensor:
        return FOLDABLE[self.op](*_replaced(self.operands, lambda weight: weight.value(source, literals)))

    @override
    def __str__(self) -> str:
        return f"{self.op}({', '.join(_text(operand) for operand in self.operands)})"


def _replaced(operand: Any, replacement: Callable[[Weight], Any]) -> Any:
    """An operand with each weight in it replaced."""
    if isinstance(operand, tuple):
        return tuple(_replaced(item, replacement) for item in operand)
    return replacement(operand) if isinstance(operand, Weight) else operand


def _text(operand: object) -> str:
    if isinstance(operand, tuple):
        return f"[{', '.join(_text(item) for item in operand)}]"
    return str(operand).removeprefix("torch.")


def _expand(x: Tensor, sizes: tuple[int, ...]) -> Tensor:
    return x.expand(sizes).contiguous()


def _slice(x: Tensor, axis: int, start: int, stop: int, step: int) -> Tensor:
    return x[(slice(None),) * axis + (slice(start, stop, step),)]


# Pure functions of tensors, numbers, dtypes and tuples. The engine computes all other operators at run time.
FOLDABLE: Mapping[str, Callable[..., Tensor]] = {
    "cast": lambda x, dtype: x.to(dtype),
    "reshape": lambda x, sizes: x.reshape(sizes),
    "permute": lambda x, axes: x.permute(axes),
    "expand": _expand,
    "slice": _slice,
    "concatenate": lambda parts, axis: torch.cat(tuple(parts), axis),
    "rows": lambda x, indices: x[indices],
    "add": lambda x, y: x + y,
    "subtract": lambda x, y: x - y,
    "multiply": lambda x, y: x * y,
    "divide": lambda x, y: x / y,
    "negate": lambda x: -x,
    "exponential": lambda x: x.exp(),
    "square_root": lambda x: x.sqrt(),
    "unpack": unpack,
    "unpack_e2m1": unpack_e2m1,
    "unpack_halves": unpack_halves,
    "unpack_signed": unpack_signed,
    "group_scales": group_scales,
    "rounded": rounded,
    "reinterpret": lambda x, dtype: x.contiguous().view(dtype),
    "int4": lambda x: x.contiguous().view(INT4),
}


def fold(op: str, *operands: Any) -> Folded:
    """Apply `op` to weights; shape and dtype are inferred with tensors on the meta device."""

    def skeleton(weight: Weight) -> Tensor:
        return torch.empty(weight.shape, dtype=weight.dtype, device="meta")

    result = FOLDABLE[op](*_replaced(operands, skeleton))
    return Folded(op, operands, tuple(result.shape), result.dtype)


def spec_of(weight: Weight) -> Spec:
    """Shape and dtype of a weight."""
    return Spec(weight.shape, weight.dtype)


def weight_bytes(weight: Weight) -> int:
    """Size of a weight in an engine; int4 values share bytes."""
    count = math.prod(weight.shape)
    return -(-count // 2) if weight.dtype == INT4 else count * weight.dtype.itemsize


def stored_names(weight: Weight) -> frozenset[str]:
    """The names of the checkpoint tensors that a weight is computed from."""
    return frozenset(leaf.name for leaf in leaves(weight) if isinstance(leaf, Stored))


def leaves(weight: Weight) -> tuple[Weight, ...]:
    """The stored tensors and literals that a weight is computed from, in order."""
    return tuple(leaf for part in weight.parts for leaf in leaves(part)) if weight.parts else (weight,)


@frozen
class Literals:
    """The literals of a network, by digest; equal tensors are stored once."""

    tensors: dict[str, Tensor] = field(factory=dict)

    def keep(self, tensor: Tensor) -> Literal:
        """Keep a copy of `tensor` and return its reference."""
        data = tensor.detach().cpu().contiguous()
        digest = hashlib.sha256(str((tuple(data.shape), data.dtype)).encode())
        digest.update(data.reshape(-1).view(torch.uint8).numpy().tobytes() if data.numel() else b"")
        key = digest.hexdigest()
        self.tensors.setdefault(key, data.clone())
        return Literal(key, tuple(data.shape), data.dtype)


Room = Callable[[tuple[int, ...], torch.dtype], Tensor]
"""Allocator: returns a writable tensor of a given shape and dtype."""


def resolve(weight: Weight, source: TensorSource, literals: Literals, room: Room | None = None) -> Tensor:
    """The values of a weight, contiguous, on the device of the source's tensors.

    Args:
        room: allocator for values that must be computed; None for new memory.
    Raises:
        ShapeError: shape or dtype of the source's tensor differ from those in the network.
    """
    if room is None or weight.is_view or isinstance(weight, Literal):
        return weight.value(source, literals).contiguous()
    if isinstance(weight, Folded) and weight.op == "concatenate":  # without a copy in between
        parts, axis = weight.operands
        return torch.cat([part.value(source, literals) for part in parts], axis, out=room(weight.shape, weight.dtype))
    return room(weight.shape, weight.dtype).copy_(weight.value(source, literals))
