"""GPTQ: 4- and 8-bit weights, packed by rows, with or without columns in the order of their activations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from attrs import frozen
from typing_extensions import override

from ditto.checkpoint.quantization.scheme import (
    SCALE_DTYPES,
    Group,
    ModuleTensors,
    QuantizationScheme,
    modules_with,
    quantized,
    stated_int,
    transposed,
)
from ditto.checkpoint.reader import CheckpointReader
from ditto.network.packing import unpack
from ditto.network.weight import Weight, fold


@frozen
class Gptq(QuantizationScheme):
    """Files of AutoGPTQ and GPTQModel.

    `qweight` int32 [columns * bits / 32, rows] and `qzeros` int32 [groups, rows * bits / 32] hold unsigned values,
    `scales` are [groups, rows], and `g_idx` has the group of each column.

    Args:
        bits: size of a value, 4 or 8.
        group: columns of a group; -1 for all.
        is_first_version: whether files hold zero points less one.
    """

    title: ClassVar[str] = "GPTQ"

    bits: int
    group: int
    is_first_version: bool

    @staticmethod
    def of(config: Mapping[str, Any], where: str) -> Gptq:
        """The scheme of a `quantization_config`.

        Raises:
            CheckpointError: it is a variant that is not read.
        """
        version = str(config.get("checkpoint_format") or config.get("format") or "gptq").lower()
        bits, group = stated_int(config, "bits") or 0, stated_int(config, "group_size", 128) or 0
        scheme = Gptq(where, bits, group, version == "gptq")
        if version not in ("gptq", "gptq_v2"):
            raise scheme.refuse(f"the format {version!r} is not read, 'gptq' and 'gptq_v2' are")
        if bits not in (4, 8):
            raise scheme.refuse(f"{config.get('bits')} bits are not read, 4 and 8 are")
        if group != -1 and group < 1:
            raise scheme.refuse(f"group_size is {config.get('group_size')!r}")
        for name in ("dynamic", "planar"):
            if config.get(name):
                raise scheme.refuse(f"`{name}` is not read")
        if config.get("pack_dtype", "int32") not in ("int32", "torch.int32"):
            raise scheme.refuse(f"words of {config['pack_dtype']} are not read, int32 are")
        return scheme

    @override
    def groups(self, reader: CheckpointReader) -> dict[str, Group]:
        found: dict[str, Group] = {}
        for module in modules_with(self, reader, "qweight"):
            packed = module.stored("qweight", (torch.int32,), 2)
            values = fold("unpack", transposed(packed), self.bits, ())
            scales = transposed(module.stored("scales", SCALE_DTYPES, 2))
            columns = values.shape[1]
            size = columns if self.group == -1 else self.group
            groups = module.column_groups("g_idx", columns, size)
            weight = quantized(module, values, scales, self._zeros(module), groups, bits=self.bits, block=(1, size))
            found[f"{module.name}.weight"] = module.group(weight)
        return found

    def _zeros(self, module: ModuleTensors) -> Weight | None:
        """The zero points; None if all are the middle of the range.

        Raises:
            CheckpointError: a zero point of the first version does not fit its bits; libraries differ in what they
                read then.
        """
        stored = fold("unpack", module.stored("qzeros", (torch.int32,), 2), self.bits, ())
        values, added = unpack(module.values("qzeros"), self.bits, ()), int(self.is_first_version)
        if self.is_first_version and bool((values == 2 ** (self.bits - 1) - 1).any()):
            raise module.refuse("has zero points beyond the range of the format's first version")
        if bool((values == -added).all()):
            return None
        return transposed(fold("add", stored, added) if added else stored)
