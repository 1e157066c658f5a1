"""AutoAWQ: 4-bit weights with 4-bit zero points, packed by columns in an interleaved order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from attrs import frozen
from typing_extensions import override

from ditto.checkpoint.quantization.scheme import (
    SCALE_DTYPES,
    Group,
    QuantizationScheme,
    modules_with,
    quantized,
    stated_int,
    transposed,
)
from ditto.checkpoint.reader import CheckpointReader
from ditto.network.weight import fold

# The nibble of a word, counted from the lowest, that holds each of its eight columns.
_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)


@frozen
class Awq(QuantizationScheme):
    """Files of AutoAWQ's version `gemm`.

    `qweight` int32 [columns, rows / 8] and `qzeros` int32 [groups, rows / 8] hold unsigned nibbles, and `scales` are
    [groups, rows].

    Args:
        group: columns of a group; -1 for all.
    """

    title: ClassVar[str] = "AWQ"

    group: int

    @staticmethod
    def of(config: Mapping[str, Any], where: str) -> Awq:
        """The scheme of a `quantization_config`.

        Raises:
            CheckpointError: it is a variant that is not read.
        """
        scheme = Awq(where, stated_int(config, "group_size", stated_int(config, "q_group_size", 128)) or 0)
        bits = config.get("bits", config.get("w_bit", 4))
        version = str(config.get("version", config.get("format", "gemm"))).lower()
        if bits != 4:
            raise scheme.refuse(f"{bits} bits are not read, 4 are")
        if version != "gemm":
            raise scheme.refuse(f"the version {version!r} is not read, 'gemm' is")
        if config.get("backend") == "llm-awq":
            raise scheme.refuse("the layout of llm-awq is not read, AutoAWQ's is")
        if scheme.group != -1 and scheme.group < 1:
            raise scheme.refuse(f"group_size is {config.get('group_size')!r}")
        return scheme

    @override
    def groups(self, reader: CheckpointReader) -> dict[str, Group]:
        found: dict[str, Group] = {}
        for module in modules_with(self, reader, "qweight"):
            packed = module.stored("qweight", (torch.int32,), 2)
            values = transposed(fold("unpack", packed, 4, _ORDER))
            zeros = transposed(fold("unpack", module.stored("qzeros", (torch.int32,), 2), 4, _ORDER))
            scales = transposed(module.stored("scales", SCALE_DTYPES, 2))
            columns = values.shape[1]
            block = (1, columns if self.group == -1 else self.group)
            weight = quantized(module, values, scales, zeros, bits=4, block=block)
            found[f"{module.name}.weight"] = module.group(weight)
        return found
