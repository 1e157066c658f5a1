"""Constants by reference: a tensor of the checkpoint, a small literal, or an operator applied to such.

Nothing here holds the checkpoint's data. A `Weight` says where a constant comes from; whoever needs the numbers
resolves it against a `TensorSource` and the network's literals, one at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol, Union

import torch
from attrs import field, frozen
from torch import Tensor
from typing_extensions import override

from ditto.errors import ShapeError
from ditto.network.spec import Spec


class TensorSource(Protocol):
    """Whoever has the checkpoint's tensors."""

    def tensor(self, name: str) -> Tensor:
        """The tensor of that name, on the CPU; the caller does not write to it."""
        ...

    def release(self) -> None:
        """Let go of memory whose content can be had again."""
        ...


@frozen
class Stored:
    """A tensor of the checkpoint, by its name there; `shape` and `dtype` as stored."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @override
    def __str__(self) -> str:
        return self.name


@frozen
class Literal:
    """A small tensor that the network itself carries, by the digest of its content."""

    digest: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @override
    def __str__(self) -> str:
        return f"literal {self.digest[:8]}"


@frozen
class Folded:
    """`FOLDABLE[op]` applied to other weights once, when it is resolved.

    Args:
        op: a name in `FOLDABLE`.
        operands: weights, numbers, dtypes, and tuples of such, in the function's order.
        shape, dtype: of the result.
    """

    op: str
    operands: tuple[Any, ...]
    shape: tuple[int, ...]
    dtype: torch.dtype

    @override
    def __str__(self) -> str:
        return f"{self.op}({', '.join(_text(operand) for operand in self.operands)})"


Weight = Union[Stored, Literal, Folded]


def _text(operand: object) -> str:
    if isinstance(operand, tuple):
        return f"[{', '.join(_text(item) for item in operand)}]"
    return str(operand).removeprefix("torch.")


def _expand(x: Tensor, sizes: tuple[int, ...]) -> Tensor:
    return x.expand(sizes).contiguous()


def _slice(x: Tensor, axis: int, start: int, stop: int, step: int) -> Tensor:
    return x[(slice(None),) * axis + (slice(start, stop, step),)]


# Each function is pure, of tensors, numbers, dtypes and tuples. What is not here is computed by the engine instead.
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
}


def fold(op: str, *operands: Any) -> Folded:
    """`op` applied to weights; its shape and dtype follow from a run on tensors without data."""

    def skeleton(operand: Any) -> Any:
        if isinstance(operand, (Stored, Literal, Folded)):
            return torch.empty(operand.shape, dtype=operand.dtype, device="meta")
        return tuple(skeleton(item) for item in operand) if isinstance(operand, tuple) else operand

    made = FOLDABLE[op](*(skeleton(operand) for operand in operands))
    return Folded(op, operands, tuple(made.shape), made.dtype)


def spec_of(weight: Weight) -> Spec:
    """Shape and dtype of a weight."""
    return Spec(weight.shape, weight.dtype)


def stored_names(weight: Weight) -> frozenset[str]:
    """The checkpoint tensors that a weight is made of."""
    return frozenset(leaf.name for leaf in leaves(weight) if isinstance(leaf, Stored))


def leaves(weight: Weight) -> tuple[Stored | Literal, ...]:
    """The stored tensors and literals that a weight is made of, in order."""
    if not isinstance(weight, Folded):
        return (weight,)
    found: list[Stored | Literal] = []

    def visit(operand: object) -> None:
        if isinstance(operand, (Stored, Literal, Folded)):
            found.extend(leaves(operand))
        elif isinstance(operand, tuple):
            for item in operand:
                visit(item)

    visit(weight.operands)
    return tuple(found)


@frozen
class Literals:
    """The literals of a network, by digest; equal tensors are kept once."""

    tensors: dict[str, Tensor] = field(factory=dict)

    def keep(self, tensor: Tensor) -> Literal:
        """Keep a copy of `tensor` and return its reference."""
        data = tensor.detach().cpu().contiguous()
        digest = hashlib.sha256(str((tuple(data.shape), data.dtype)).encode())
        digest.update(data.reshape(-1).view(torch.uint8).numpy().tobytes() if data.numel() else b"")
        key = digest.hexdigest()
        self.tensors.setdefault(key, data.clone())
        return Literal(key, tuple(data.shape), data.dtype)


def is_view(weight: Weight) -> bool:
    """Whether resolving a weight gives a view of its stored tensor, without new memory."""
    return isinstance(weight, Stored) or (
        isinstance(weight, Folded) and weight.op == "reshape" and is_view(weight.operands[0])
    )


Room = Callable[[tuple[int, ...], torch.dtype], Tensor]
"""Gives a tensor of a shape and dtype, to be written to."""


def resolve(weight: Weight, source: TensorSource, literals: Literals, room: Room | None = None) -> Tensor:
    """The numbers of a weight, contiguous, where the source has its tensors.

    Args:
        room: where they are put if they have to be computed; None for new memory.
    Raises:
        ShapeError: the source's tensor has another shape or dtype than the network was described with.
    """

    def value(operand: Any) -> Any:
        if isinstance(operand, tuple):
            return tuple(value(item) for item in operand)
        if isinstance(operand, Folded):
            return FOLDABLE[operand.op](*(value(inner) for inner in operand.operands))
        if isinstance(operand, Literal):
            return literals.tensors[operand.digest]
        if isinstance(operand, Stored):
            tensor = source.tensor(operand.name)
            if tuple(tensor.shape) != operand.shape or tensor.dtype != operand.dtype:
                raise ShapeError(
                    f"checkpoint tensor `{operand.name}` is {Spec.of(tensor)}, the network was described with "
                    f"{spec_of(operand)}",
                    remedy="build the engines again from this checkpoint",
                )
            return tensor
        return operand

    if room is None or is_view(weight) or isinstance(weight, Literal):
        return value(weight).contiguous()
    if isinstance(weight, Folded) and weight.op == "concatenate":  # without a copy in between
        parts, axis = weight.operands
        return torch.cat(value(parts), axis, out=room(weight.shape, weight.dtype))
    return room(weight.shape, weight.dtype).copy_(value(weight))
