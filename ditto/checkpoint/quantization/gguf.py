"""GGUF: blocks of 32 columns with a scale, and in Q4_1 an offset, in float16."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from attrs import evolve

from ditto.checkpoint.gguf import BLOCK, GgufTensor
from ditto.checkpoint.quantization.scheme import FULL_PRECISION, Group
from ditto.errors import CheckpointError
from ditto.network.quantized import QuantizedWeight
from ditto.network.weight import Stored, Weight, fold


def gguf_groups(
    tensors: Mapping[str, GgufTensor], names: Mapping[str, str], heads: Mapping[str, int], where: str
) -> dict[str, Group]:
    """The weights of a GGUF file, quantised or plain, by the model's names.

    Args:
        tensors: of the file.
        names: the model's name of each tensor.
        heads: number of heads of those whose rope turns pairs of rows in the file and halves of a head in the model,
            by the model's names.
        where: the file.
    Raises:
        CheckpointError: a tensor has no place in the model, or a shape that has no such heads.
    """
    unknown = sorted(tensors.keys() - names.keys())
    if unknown:
        raise CheckpointError(
            f"GGUF: {len(unknown)} tensors have no place in the model as transformers reads it, e.g. `{unknown[0]}`",
            where=where,
            remedy=FULL_PRECISION,
        )
    groups: dict[str, Group] = {}
    for stored, tensor in tensors.items():
        name = names[stored]
        if tensor.kind.block_bytes and len(tensor.shape) != 2:
            raise CheckpointError(
                f"GGUF: `{stored}` is {tensor.kind.name} of shape {list(tensor.shape)}, and only matrices are read.",
                where=where,
                remedy=FULL_PRECISION,
            )
        if tensor.shape[0] % (2 * heads.get(name, 1)) and name in heads:
            raise CheckpointError(
                f"GGUF: `{stored}` has {tensor.shape[0]} rows, and the model {heads[name]} heads.",
                where=where,
                remedy=FULL_PRECISION,
            )
        groups[name] = Group(_weight(stored, tensor, heads.get(name)), frozenset({stored}))
    return groups


def _weight(name: str, tensor: GgufTensor, heads: int | None) -> Weight:
    stored = Stored(name, tensor.stored_shape, tensor.kind.dtype)
    if not tensor.kind.block_bytes:
        return _in_halves(stored, heads)
    rows, columns = tensor.shape
    blocks = fold("reshape", stored, (rows, columns // BLOCK, tensor.kind.block_bytes))

    def part(start: int, stop: int) -> Weight:
        return fold("slice", blocks, 2, start, stop, 1)

    def half(start: int) -> Weight:
        """A number of each block in float16."""
        found = fold("reshape", fold("reinterpret", part(start, start + 2), torch.float16), (rows, columns // BLOCK))
        return _in_halves(found, heads)

    is_byte = tensor.kind.name == "Q8_0"
    first = tensor.kind.block_bytes - (BLOCK if is_byte else BLOCK // 2)
    packed = part(first, tensor.kind.block_bytes)
    unpacked = fold("reinterpret", packed, torch.int8) if is_byte else fold("unpack_halves", packed)
    values = _in_halves(fold("reshape", unpacked, (rows, columns)), heads)
    bits = 8 if is_byte else 4
    weight = QuantizedWeight(values, half(0), None, bits, (1, BLOCK), None, tensor.shape, torch.float32)
    if tensor.kind.name != "Q4_1":
        return weight
    # Its values are from 0 to 15: eight more than those that are unpacked.
    nothing = fold("cast", fold("multiply", fold("reshape", part(0, 1), (rows, columns // BLOCK)), 0), torch.int8)
    return evolve(weight, zeros=fold("add", nothing, -8), offsets=half(2))


def _in_halves(weight: Weight, heads: int | None) -> Weight:
    """Rows of a projection in transformers' order."""
    if heads is None:
        return weight
    rows, *rest = weight.shape
    pairs = fold("reshape", weight, (heads, rows // heads // 2, 2, *rest))
    return fold("reshape", fold("permute", pairs, (0, 2, 1, *range(3, 3 + len(rest)))), (rows, *rest))
