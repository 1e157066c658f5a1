"""Layouts: the factors of a tensor's axes, and the axes that index tokens.

A layout lists the factors of each axis from the outermost to the innermost: numbers, and names of dimensions that index
tokens, rows or sequences. `(("batch", "sequence"), (8, 64))` is [B*S, 512], tokens by 8 heads of 64 columns.
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
    """The layout of a tensor that is constant along its named axes, or has no named axes."""
    return tuple((size,) if isinstance(size, int) else tuple(sorted(size.names)) for size in shape)


def names(layout: Layout) -> list[str]:
    """The named dimensions of all axes, in order."""
    return [part for axis in layout for part in axis if isinstance(part, str)]


def is_named(axis: Axis) -> bool:
    """Whether an axis indexes tokens, rows or sequences."""
    return any(isinstance(part, str) for part in axis)


def regrouped(layout: Layout, shape: Sequence[Dim]) -> Layout | None:
    """The layout after a reshape, or None if an axis of the result would split a named dimension."""
    rest: list[int | str] = []
    for part in (part for axis in layout for part in axis):
        if isinstance(part, int) and rest and isinstance(rest[-1], int):
            rest[-1] *= part
        elif part != 1:
            rest.append(part)
    axes: list[Axis] = []
    for size in shape:
        axis: list[int | str] = []
        needed: Dim = size
        while needed != 1:
            step = _next_factor(rest, needed)
            if step is None:
                return None
            part, needed = step
            axis.append(part)
        axes.append(tuple(axis))
    return tuple(axes) if not [part for part in rest if part != 1] else None


def _next_factor(rest: list[int | str], needed: Dim) -> tuple[int | str, Dim] | None:
    """Take the next factor of an axis whose remaining size is `needed`: (factor, new remaining size), or None."""
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
    """The largest integer that divides a size for all values of its named dimensions."""
    return gcd(*(factor for _, factor in size.terms))


def broadcast(layouts: Sequence[Layout], uniform: Sequence[Layout] = ()) -> Layout | None:
    """The layout of an elementwise result, or None if different tokens of the operands meet.

    Args:
        layouts: of the operands that index tokens.
        uniform: of the operands that are constant along their named axes.
    """
    rank = max((len(layout) for layout in (*layouts, *uniform)), default=0)
    first, second = ([canonical(((),) * (rank - len(one)) + one) for one in given] for given in (layouts, uniform))
    axes: list[Axis] = []
    for position in range(rank):
        token_axes, uniform_axes = ([layout[position] for layout in given] for given in (first, second))
        named = {axis for axis in token_axes if is_named(axis)}
        if len(named) > 1:
            return None
        axes.append(named.pop() if named else next((axis for axis in (*uniform_axes, *token_axes) if axis), ()))
    return tuple(axes) if is_apart(axes) else None


def canonical(layout: Iterable[Axis]) -> Layout:
    """A layout with adjacent numbers multiplied and factors of 1 omitted."""
    return tuple(map(_merged, layout))


def is_apart(layout: Sequence[Axis]) -> bool:
    """Whether no named dimension occurs twice, which would pair tokens with each other."""
    found = names(tuple(layout))
    return len(found) == len(set(found))


def _merged(axis: Axis) -> Axis:
    factors: list[int | str] = []
    for part in axis:
        if isinstance(part, int) and factors and isinstance(factors[-1], int):
            factors[-1] *= part
        elif part != 1:
            factors.append(part)
    return tuple(factors)
