"""Recipes: parameters that a checkpoint stores in another form, such as one tensor for each expert."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from attrs import frozen
from torch import Tensor
from typing_extensions import override

from ditto.errors import CheckpointError
from ditto.network.weight import Weight, fold

_STACKED = ("MergeModulelist", 0)
_JOINED = ("Concatenate", 1)


class Recipe(ABC):
    """How a parameter follows from stored tensors; their values are read when the parameter is needed."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The stored tensors, in order."""

    @abstractmethod
    def weight(self, weight_of: Callable[[str, Tensor], Weight], parameter: Tensor) -> Weight:
        """The parameter's weight.

        Args:
            weight_of: weight of a stored tensor, which has shape and dtype of the second argument.
            parameter: only its shape and dtype are used.
        """


@frozen
class Stacked(Recipe):
    """A parameter [E, ...]: for each of its E slices, tensors that are joined along their first axis."""

    slices: tuple[tuple[str, ...], ...]

    @property
    @override
    def names(self) -> tuple[str, ...]:
        return tuple(name for names in self.slices for name in names)

    @override
    def weight(self, weight_of: Callable[[str, Tensor], Weight], parameter: Tensor) -> Weight:
        one = parameter.detach()[0].chunk(len(self.slices[0]))[0]
        rows = fold("concatenate", tuple(weight_of(name, one) for name in self.names), 0)
        count = len(self.slices)
        return fold("reshape", rows, (count, rows.shape[0] // count, *rows.shape[1:]))


@frozen
class Transposed(Recipe):
    """A parameter whose two `axes` are the other way round in the checkpoint."""

    name: str
    axes: tuple[int, int]

    @property
    @override
    def names(self) -> tuple[str, ...]:
        return (self.name,)

    @override
    def weight(self, weight_of: Callable[[str, Tensor], Weight], parameter: Tensor) -> Weight:
        order = list(range(parameter.dim()))
        first, second = self.axes
        order[first], order[second] = second, first
        return fold("permute", weight_of(self.name, parameter.detach().permute(order)), tuple(order))


@frozen
class Chunked(Recipe):
    """One of `count` parameters of equal size whose values follow each other along an axis of a stored tensor."""

    name: str
    axis: int
    index: int
    count: int

    @property
    @override
    def names(self) -> tuple[str, ...]:
        return (self.name,)

    @override
    def weight(self, weight_of: Callable[[str, Tensor], Weight], parameter: Tensor) -> Weight:
        shape, size = list(parameter.shape), parameter.shape[self.axis]
        shape[self.axis] = size * self.count
        whole = weight_of(self.name, torch.empty(shape, dtype=parameter.dtype, device="meta"))
        return fold("slice", whole, self.axis, size * self.index, size * (self.index + 1), 1)


@frozen
class Halved(Recipe):
    """A projection of `heads` whose rope turns pairs of values in the checkpoint, and halves of a head in the model."""

    inner: Recipe
    heads: int

    @property
    @override
    def names(self) -> tuple[str, ...]:
        return self.inner.names

    @override
    def weight(self, weight_of: Callable[[str, Tensor], Weight], parameter: Tensor) -> Weight:
        paired, (size, *rest) = self.inner.weight(weight_of, parameter), parameter.shape
        pairs = fold("reshape", paired, (self.heads, size // self.heads // 2, 2, *rest))
        halves = fold("permute", pairs, (0, 2, 1, *range(3, 3 + len(rest))))
        return fold("reshape", halves, (size, *rest))


def places_of(converter: Any, place: str) -> list[str]:
    """The parameters that a rule of transformers makes of a stored tensor: `place` and those beside it."""
    targets = list(converter.target_patterns)
    if len(targets) == 1:
        return [place]
    held = next((target for target in targets if target in place), None)
    return [place] if held is None else [place.replace(held, target, 1) for target in targets]


def recipe_of(
    converter: Any,
    place: str,
    names: Mapping[str, Sequence[str]],
    where: str,
    fits: Callable[[str], bool],
    config: Any = None,
) -> str | Recipe:
    """The recipe of a parameter by a rule of transformers (`WeightConverter`), or the name of its tensor.

    Args:
        place: the parameter's name in the model.
        names: stored names by the rule's source pattern that they match.
        fits: whether a stored tensor has the parameter's shape.
        config: the model's configuration, which some rules ask for a number of heads.
    Raises:
        CheckpointError: the rule does something other than stacking, transposing or dividing, or tensors are missing.
    """
    operations = [(type(operation).__name__, getattr(operation, "dim", None)) for operation in converter.operations]
    found = [name for each in names.values() for name in each]
    if operations == [("Transpose", None)] and len(found) == 1:
        (rule,), (name,) = converter.operations, found
        return name if rule.check_dims and fits(name) else Transposed(name, (rule.dim0, rule.dim1))
    if [kind for kind, _ in operations] in (["Chunk"], ["Chunk", "PermuteForRope"]) and len(found) == 1:
        targets, axis = list(converter.target_patterns), int(converter.operations[0].dim)
        held = [index for index, target in enumerate(targets) if target in place]
        if len(held) == 1 and getattr(converter.operations[0], "num_shards_attribute", None) is None:
            chunk = Chunked(found[0], axis, held[0], len(targets))
            return _halved(chunk, targets[held[0]], converter.operations[1], config) if len(operations) > 1 else chunk
    stacks_joined = operations == [_STACKED, _JOINED] and len(converter.source_patterns) > 1
    if not stacks_joined and operations != [_STACKED]:
        raise CheckpointError(
            f"`{found[0]}` is stored in another form than the model's `{place}`",
            where=where,
            remedy="supported are parameters that are transposed, divided, or stored in slices, one for each expert",
        )
    columns = [_in_order(names.get(pattern, ()), place, where) for pattern in converter.source_patterns]
    if len({len(column) for column in columns}) != 1:
        raise CheckpointError(
            f"`{place}` is stored in slices, and {_counts(converter, columns)}",
            where=where,
            remedy="check that all files of the checkpoint are there",
        )
    return Stacked(tuple(zip(*columns, strict=True)))


def _halved(recipe: Recipe, target: str, operation: Any, config: Any) -> Recipe:
    """A recipe with the permutation of transformers' `PermuteForRope`, where it applies."""
    layers = operation.permute_layer_names
    if operation.inverse:
        raise CheckpointError(
            f"transformers reads `{target}` in another order than it is stored, which Ditto does not support",
            remedy="load the model with transformers and save it with `save_pretrained`",
        )
    if layers is not None and not any(layer in target for layer in layers):
        return recipe
    own = config if operation.subconfig_key is None else getattr(config, operation.subconfig_key, config)
    return Halved(recipe, own.num_attention_heads)


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
