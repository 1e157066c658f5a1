"""Base class of quantised formats, and the groups of tensors that make a weight."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import torch
from attrs import evolve, frozen
from torch import Tensor

from ditto.checkpoint.index import TensorRecord
from ditto.checkpoint.reader import CheckpointReader
from ditto.errors import CheckpointError
from ditto.network.quantized import QuantizedWeight
from ditto.network.weight import Stored, Weight, fold

FULL_PRECISION = "build from the model's checkpoint in float32, float16 or bfloat16"
SCALE_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@frozen
class Group:
    """A weight, quantised or computed, and the names of all stored tensors that belong to it.

    Args:
        quantized: the weight as stored; `matrix` is the layer's weight.
        members: names of the stored tensors.
        input_scale: [columns], by which the layer's input is multiplied; None for none.
    """

    quantized: Weight
    members: frozenset[str]
    input_scale: Weight | None = None

    def matrix(self, dtype: torch.dtype) -> Weight:
        """The weight in `dtype`; a scale of the input becomes one of its columns."""
        if self.input_scale is None:
            return _in_dtype(self.quantized, dtype)
        scale = fold("cast", self.input_scale, torch.float32)
        return fold("cast", fold("multiply", _in_dtype(self.quantized, torch.float32), scale), dtype)


def _in_dtype(weight: Weight, dtype: torch.dtype) -> Weight:
    if isinstance(weight, QuantizedWeight):
        return evolve(weight, dtype=dtype)
    return weight if weight.dtype == dtype else fold("cast", weight, dtype)


@frozen
class QuantizationScheme(ABC):
    """How a checkpoint stores quantised weights.

    Args:
        where: file that states it.
    """

    title: ClassVar[str]
    """Name of the format, for messages."""

    where: str

    @property
    def note(self) -> str | None:
        """What the engine does otherwise than the format's own kernels; None for nothing."""
        return None

    @abstractmethod
    def groups(self, reader: CheckpointReader) -> dict[str, Group]:
        """The quantised weights, by the names of the float tensors that they stand for (`...weight`).

        Only headers and small tensors are read.

        Raises:
            CheckpointError: the tensors contradict the configuration.
        """

    def refuse(self, cause: str, where: str | None = None) -> CheckpointError:
        """An error that names the format."""
        return CheckpointError(f"{self.title}: {cause}", where=where or self.where, remedy=FULL_PRECISION)


class ModuleTensors:
    """The stored tensors of one quantised module.

    Args:
        name: of the module, as in the checkpoint.
        records: by the last part of their names.
    """

    def __init__(
        self, scheme: QuantizationScheme, name: str, records: Mapping[str, TensorRecord], reader: CheckpointReader
    ) -> None:
        self._scheme, self._reader = scheme, reader
        self.name, self.records = name, records
        self._used: set[str] = set()

    def stored(self, part: str, dtypes: Collection[torch.dtype], *ranks: int) -> Stored:
        """A tensor of the module.

        Raises:
            CheckpointError: it is missing, or has another dtype or rank.
        """
        record = self.records.get(part)
        if record is None:
            raise self.refuse(f"has no `{part}`")
        if record.dtype not in dtypes or len(record.shape) not in ranks:
            raise self.refuse(f"has `{part}` of dtype {_name(record.dtype)} and shape {list(record.shape)}")
        self._used.add(part)
        return Stored(f"{self.name}.{part}", record.shape, record.dtype)

    def values(self, part: str) -> Tensor:
        """The values of a small tensor of the module."""
        self._used.add(part)
        return self._reader.tensor(f"{self.name}.{part}")

    def ignore(self, *parts: str) -> None:
        """Take tensors that the weight does not depend on as used, if they are stored."""
        self._used.update(set(parts) & set(self.records))

    def column_groups(self, part: str, count: int, size: int) -> Weight | None:
        """The group of each column; None if columns are in the order of their groups.

        Raises:
            CheckpointError: there are fewer groups than it names.
        """
        if part not in self.records:
            return None
        weight, found = self.stored(part, (torch.int32, torch.int64), 1), self.values(part)
        if found.numel() != count or int(found.min()) < 0 or int(found.max()) > (count - 1) // size:
            raise self.refuse(f"has `{part}` that names other groups than there are")
        return None if torch.equal(found.long(), torch.arange(count) // size) else weight

    def group(self, weight: QuantizedWeight, input_scale: Weight | None = None) -> Group:
        """The weight with the names of the tensors used so far."""
        return Group(weight, frozenset(f"{self.name}.{part}" for part in self._used), input_scale)

    def refuse(self, cause: str) -> CheckpointError:
        """An error that names the module."""
        record = next(iter(self.records.values()))
        return self._scheme.refuse(f"`{self.name}` {cause}", str(record.file))


def modules_with(scheme: QuantizationScheme, reader: CheckpointReader, mark: str) -> list[ModuleTensors]:
    """The modules that store a tensor named `mark`, in the order of their names."""
    tensors = reader.index.tensors
    names = sorted(name.removesuffix(f".{mark}") for name in tensors if name.endswith(f".{mark}"))
    records: dict[str, dict[str, TensorRecord]] = {name: {} for name in names}
    for name, record in tensors.items():
        module, _, part = name.rpartition(".")
        if module in records:
            records[module][part] = record
    return [ModuleTensors(scheme, name, held, reader) for name, held in records.items()]


def quantized(
    module: ModuleTensors,
    values: Weight,
    scales: Weight,
    zeros: Weight | None = None,
    groups: Weight | None = None,
    *,
    bits: int,
    block: tuple[int, int],
) -> QuantizedWeight:
    """A quantised weight, after a check that its parts fit together.

    Raises:
        CheckpointError: they do not.
    """
    shape = values.shape
    wanted = tuple(-(-size // step) for size, step in zip(shape, block))
    for name, part in (("scales", scales), ("zero points", zeros)):
        if part is not None and part.shape != wanted:
            found = f"{list(part.shape)}, not {list(wanted)}, for a weight {list(shape)} in blocks {list(block)}"
            raise module.refuse(f"has {name} of shape {found}")
    return QuantizedWeight(values, scales, zeros, bits, block, groups, shape, torch.float32)


def transposed(weight: Weight) -> Weight:
    """The transpose of a matrix."""
    return fold("permute", weight, (1, 0))


def column(weight: Weight) -> Weight:
    """A scalar or vector as a matrix with one column."""
    return weight if len(weight.shape) == 2 else fold("reshape", weight, (weight.shape[0] if weight.shape else 1, 1))


def e2m1_matrix(packed: Weight) -> Weight:
    """FP4 values (E2M1) as FP8, which holds them all; two in a byte along the columns, the first in the lower half."""
    return fold("unpack_e2m1", packed)


def stated_int(config: Mapping[str, Any], name: str, default: int | None = None) -> int | None:
    """An integer of a configuration; None if it is another value."""
    value = config.get(name, default)
    return value if type(value) is int else None


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
