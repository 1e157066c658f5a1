"""Which axes of a tensor tell tokens apart.

A layout says of each axis what it is made of, from the outside in: numbers, and names of dimensions whose entries are
tokens, rows or sequences: `(("batch", "sequence"), (8, 64))` is [B*S, 512], tokens by heads of 64 columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import gcd
from typing import Union

from ditto.network import dims
from ditto.network.dims import Dim, DimExpr

Axis = tuple[Union[int, str], ...]
Layout = tuple[Axis, ...]


def plain(shape: Iterable[Dim]) -> Layout:
    """The layout of a tensor that has the same everywhere along its named axes, or no named axes."""
    return tuple((size,) if isinstance(size, int) else tuple(sorted(size.names)) for size in shape)


def names(layout: Layout) -> list[str]:
    """The named dimensions of all axes, in order."""
    return [part for axis in layout for part in axis if isinstance(part, str)]


def is_named(axis: Axis) -> bool:
    """Whether an axis tells tokens apart."""
    return any(isinstance(part, str) for part in axis)


def regrouped(layout: Layout, shape: Sequence[Dim]) -> Layout | None:
    """The layout after a reshape, or None where an axis of the result would tear named dimensions apart."""
    rest: list[int | str] = []
    for part in (part for axis in layout for part in axis):
        if isinstance(part, int) and rest and isinstance(rest[-1], int):
            rest[-1] *= part
        elif part != 1:
            rest.append(part)
    made: list[Axis] = []
    for size in shape:
        axis: list[int | str] = []
        needed: Dim = size
        while needed != 1:
            taken = _taken(rest, needed)
            if taken is None:
                return None
            part, needed = taken
            axis.append(part)
        made.append(tuple(axis))
    return tuple(made) if not [part for part in rest if part != 1] else None


def _taken(rest: list[int | str], needed: Dim) -> tuple[int | str, Dim] | None:
    """Take the next factor of an axis that still lacks `needed`: (it, what then lacks), or None."""
    while rest and rest[0] == 1:
        del rest[0]
    if not rest:
        return None
    part = rest[0]
    if isinstance(part, str):
        left = dims.divide(needed, dims.symbol(part))
        if left is None:
            return None
        del rest[0]
        return part, left
    number = needed if isinstance(needed, int) else _number_in(needed)
    common = gcd(part, number)
    left = dims.divide(needed, common)
    if common == 1 or left is None:
        return None
    rest[0] = part // common
    return common, left


def _number_in(size: DimExpr) -> int:
    """The largest number that divides a size whatever its names stand for."""
    return gcd(*(factor for _, factor in size.terms))


def broadcast(layouts: Sequence[Layout], uniform: Sequence[Layout] = ()) -> Layout | None:
    """The layout of what is computed entry by entry from tensors of these layouts, or None where tokens of one meet
    other tokens of another.

    Args:
        uniform: of more tensors, each the same all along its named axes.
    """
    rank = max((len(layout) for layout in (*layouts, *uniform)), default=0)
    first, second = ([canonical(((),) * (rank - len(one)) + one) for one in given] for given in (layouts, uniform))
    made: list[Axis] = []
    for position in range(rank):
        told, same = ([layout[position] for layout in given] for given in (first, second))
        named = {axis for axis in told if is_named(axis)}
        if len(named) > 1:
            return None
        made.append(named.pop() if named else next((axis for axis in (*same, *told) if axis), ()))
    return tuple(made) if is_apart(made) else None


def canonical(layout: Iterable[Axis]) -> Layout:
    """A layout with numbers beside each other multiplied, those that are 1 left out."""
    return tuple(map(_merged, layout))


def is_apart(layout: Sequence[Axis]) -> bool:
    """Whether each named dimension occurs once: twice, and tokens are paired with each other."""
    found = names(tuple(layout))
    return len(found) == len(set(found))


def _merged(axis: Axis) -> Axis:
    made: list[int | str] = []
    for part in axis:
        if isinstance(part, int) and made and isinstance(made[-1], int):
            made[-1] *= part
        elif part != 1:
            made.append(part)
    return tuple(made)
