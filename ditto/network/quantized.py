"""Quantised weights: small integers or fp8 values, with scales and zero points by block."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import torch
from attrs import evolve, frozen
from torch import Tensor
from typing_extensions import override

from ditto.network.weight import Folded, Literals, TensorSource, Weight, fold, stored_names, weight_bytes


@frozen
class QuantizedWeight(Weight):
    """The matrix (values - zeros) * scales + offsets, whose blocks share a scale, a zero point and an offset.

    It is computed in float32 and rounded once, to `dtype`. This equals what the libraries of all formats compute in the
    dtype of their scales, as a product of two half-precision numbers is exact in float32.

    Args:
        values: int8 or fp8 [rows, columns]; 4-bit values are from -8 to 7.
        scales: floating-point, one for each block.
        zeros: int8, one for each block; None for symmetric formats.
        bits: size of a value, 4 or 8.
        block: rows and columns of a block; blocks at the end may be smaller.
        groups: int32 [columns], the column of scales for each column of values, if these are not in order.
        shape, dtype: of the matrix.
        offsets: floating-point, one for each block; None for none.
    """

    values: Weight
    scales: Weight
    zeros: Weight | None
    bits: int
    block: tuple[int, int]
    groups: Weight | None
    shape: tuple[int, ...]
    dtype: torch.dtype
    offsets: Weight | None = None

    @property
    @override
    def parts(self) -> tuple[Weight, ...]:
        return tuple(
            part for part in (self.values, self.scales, self.zeros, self.groups, self.offsets) if part is not None
        )

    @property
    @override
    def is_view(self) -> bool:
        return False

    @override
    def value(self, source: TensorSource, literals: Literals) -> Tensor:
        values = self.values.value(source, literals).float()
        groups = None if self.groups is None else self.groups.value(source, literals).long()

        def by_block(part: Weight) -> Tensor:
            """Scales or zero points in the shape of the blocked values."""
            found = part.value(source, literals).float()
            if groups is not None:
                return found[:, groups][:, None, :, None]
            return found[:, None, :, None] if is_even else self._spread(found)[:, None, :, None]

        rows, columns = self.shape
        high, wide = self.block
        is_even = groups is None and rows % high == 0 and columns % wide == 0
        blocked = (rows // high, high, columns // wide, wide) if is_even else (rows, 1, columns, 1)
        result = values.reshape(blocked)
        if self.zeros is not None:
            result = result - by_block(self.zeros)
        result = result * by_block(self.scales)
        if self.offsets is not None:
            result = result + by_block(self.offsets)
        return result.to(self.dtype).reshape(self.shape)

    def _spread(self, part: Tensor) -> Tensor:
        """A block's scale or zero point for each value, [rows, columns]."""
        rows, columns = self.shape
        return part.repeat_interleave(self.block[0], 0)[:rows].repeat_interleave(self.block[1], 1)[:, :columns]

    @override
    def __str__(self) -> str:
        return f"dequantize({', '.join(str(part) for part in self.parts)})"


def quantized_form(weight: Weight) -> QuantizedWeight | None:
    """A weight as a single quantised matrix; None if it is another one.

    Casts, concatenations of rows and slices of rows apply to values, scales and zero points alike, if blocks stay
    whole.
    """
    if isinstance(weight, QuantizedWeight):
        return weight
    if not isinstance(weight, Folded):
        return None
    if weight.op == "cast":
        inner = quantized_form(weight.operands[0])
        return None if inner is None or not weight.dtype.is_floating_point else evolve(inner, dtype=weight.dtype)
    if weight.op == "concatenate" and weight.operands[1] == 0:
        return _concatenated([quantized_form(part) for part in weight.operands[0]])
    if weight.op == "slice":
        inner, (axis, start, stop, step) = quantized_form(weight.operands[0]), weight.operands[1:]
        return _rows(inner, start, stop) if inner is not None and (axis, step) == (0, 1) else None
    return None


def _concatenated(parts: list[QuantizedWeight | None]) -> QuantizedWeight | None:
    """Quantised matrices below each other; None if they differ in more than values, or blocks are cut off."""
    forms = [by_row(part) for part in parts if part is not None]
    first = forms[0] if len(forms) == len(parts) else None
    if first is None or len({_form(form) for form in forms}) > 1 or any(f.shape[0] % f.block[0] for f in forms[:-1]):
        return None
    rows = sum(form.shape[0] for form in forms)
    return evolve(
        first,
        values=fold("concatenate", tuple(form.values for form in forms), 0),
        scales=fold("concatenate", tuple(form.scales for form in forms), 0),
        zeros=None if first.zeros is None else fold("concatenate", tuple(form.zeros for form in forms), 0),
        offsets=None if first.offsets is None else fold("concatenate", tuple(form.offsets for form in forms), 0),
        shape=(rows, first.shape[1]),
    )


def _form(weight: QuantizedWeight) -> object:
    """Everything that must be equal in matrices that become one."""
    zeros, scales = (weight.zeros is not None, weight.offsets is not None), weight.scales.dtype
    return weight.bits, weight.values.dtype, scales, zeros, weight.block, weight.groups, weight.shape[1], weight.dtype


def by_row(weight: QuantizedWeight) -> QuantizedWeight:
    """A matrix whose blocks are all of its rows, in the form with a scale for each row."""
    rows = weight.shape[0]
    if weight.block[0] < rows or weight.block[0] == 1:
        return weight

    def spread(part: Weight) -> Weight:
        return fold("expand", part, (rows, part.shape[1]))

    zeros = None if weight.zeros is None else spread(weight.zeros)
    offsets = None if weight.offsets is None else spread(weight.offsets)
    return evolve(weight, scales=spread(weight.scales), zeros=zeros, offsets=offsets, block=(1, weight.block[1]))


def _rows(weight: QuantizedWeight, start: int, stop: int) -> QuantizedWeight | None:
    """Some rows of a quantised matrix; None if they cut a block."""
    form, count = by_row(weight), stop - start
    high = form.block[0]
    if start % high or (count % high and stop != form.shape[0]):
        return None

    def rows(part: Weight, block: int) -> Weight:
        return fold("slice", part, 0, start // block, -(-stop // block), 1)

    zeros = None if form.zeros is None else rows(form.zeros, high)
    offsets = None if form.offsets is None else rows(form.offsets, high)
    values, scales, shape = rows(form.values, 1), rows(form.scales, high), (count, form.shape[1])
    return evolve(form, values=values, scales=scales, zeros=zeros, offsets=offsets, shape=shape)


def bytes_by_kind(weights: Iterable[Weight]) -> dict[str, int]:
    """Sizes of weights in an engine by dtype, the largest first; dequantised floats are a kind of their own."""
    found: Counter[str] = Counter()
    for weight in weights:
        name = str(weight.dtype).removeprefix("torch.") + (" (dequantised)" if has_quantized(weight) else "")
        found[name] += weight_bytes(weight)
    return dict(found.most_common())


def has_quantized(weight: Weight) -> bool:
    """Whether a weight is computed from a quantised one."""
    return isinstance(weight, QuantizedWeight) or any(has_quantized(part) for part in weight.parts)


def round_to_nearest(weight: Weight, bits: int, size: int, dtype: torch.dtype) -> QuantizedWeight:
    """A float matrix rounded to integers, without zero points.

    Args:
        bits: size of an integer, 4 or 8.
        size: columns that share a scale.
        dtype: of the scales and of the dequantised matrix.
    """
    scales = fold("group_scales", weight, bits, size, dtype)
    values = fold("rounded", weight, scales, bits)
    return QuantizedWeight(values, scales, None, bits, (1, size), None, weight.shape, dtype)


def rounded_tensors(weights: Iterable[Weight]) -> dict[str, QuantizedWeight]:
    """The stored tensors that `round_to_nearest` was applied to, among those that weights are computed from."""
    found: dict[str, QuantizedWeight] = {}
    for weight in weights:
        found.update(rounded_tensors(weight.parts))
        if isinstance(weight, Folded) and weight.op == "rounded":
            (stored,) = stored_names(weight)
            matrix, scales, bits = weight.operands
            found[stored] = round_to_nearest(matrix, bits, weight.shape[1] // scales.shape[1], scales.dtype)
    return found
