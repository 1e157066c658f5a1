"""Recipes: parameters that a checkpoint stores as several tensors, such as one for each expert."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import frozen

from ditto.errors import CheckpointError
from ditto.network.weight import Weight, fold

_STACKED = ("MergeModulelist", 0)
_JOINED = ("Concatenate", 1)


@frozen
class Recipe:
    """Names of the tensors that make a parameter [E, ...]: for each of its E slices, those joined along its first axis.

    Their values are read and joined when the parameter is needed.
    """

    slices: tuple[tuple[str, ...], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """All tensors, in order."""
        return tuple(name for names in self.slices for name in names)

    def weight(self, weight_of: Callable[[str], Weight]) -> Weight:
        """The parameter, from the weight of each tensor."""
        rows = fold("concatenate", tuple(weight_of(name) for name in self.names), 0)
        count = len(self.slices)
        return fold("reshape", rows, (count, rows.shape[0] // count, *rows.shape[1:]))


def recipe_of(converter: Any, place: str, names: Mapping[str, Sequence[str]], where: str) -> Recipe:
    """The recipe of a parameter by a rule of transformers (`WeightConverter`).

    Args:
        place: the parameter's name in the model.
        names: stored names by the rule's source pattern that they match.
    Raises:
        CheckpointError: the rule does something other than stacking, or tensors are missing.
    """
    operations = [(type(operation).__name__, getattr(operation, "dim", None)) for operation in converter.operations]
    stacks_joined = operations == [_STACKED, _JOINED] and len(converter.source_patterns) > 1
    if not stacks_joined and operations != [_STACKED]:
        first = next(iter(names.values()))[0]
        raise CheckpointError(
            f"`{first}` is stored in another form than the model's `{place}`",
            where=where,
            remedy="only parameters that are stored in slices, one for each expert, are put together",
        )
    columns = [_in_order(names.get(pattern, ()), place, where) for pattern in converter.source_patterns]
    if len({len(column) for column in columns}) != 1:
        raise CheckpointError(
            f"`{place}` is stored in slices, and {_counts(converter, columns)}",
            where=where,
            remedy="check that all files of the checkpoint are there",
        )
    return Recipe(tuple(zip(*columns, strict=True)))


def _in_order(names: Sequence[str], place: str, where: str) -> list[str]:
    """Names in the order of the number that tells them apart, which counts from 0."""
    numbers = {name: [int(number) for number in re.findall(r"\d+", name)] for name in names}
    varying = [index for index, values in enumerate(zip(*numbers.values())) if len(set(values)) > 1] or [-1]
    ordered = sorted(names, key=lambda name: numbers[name][varying[0]])
    if len(varying) != 1 or [numbers[name][varying[0]] for name in ordered] != list(range(len(ordered))):
        raise CheckpointError(
            f"`{place}` is stored in slices, and not all of them are there: {len(names)}, e.g. `{ordered[-1]}`",
            where=where,
            remedy="check that all files of the checkpoint are there",
        )
    return ordered


def _counts(converter: Any, columns: Sequence[Sequence[str]]) -> str:
    pairs = zip(converter.source_patterns, columns, strict=True)
    return ", ".join(f"{len(column)} are of `{pattern}`" for pattern, column in pairs)
