"""Fine-grained FP8: weights in float8_e4m3fn with a scale for each block, as Qwen and DeepSeek publish them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from attrs import frozen
from typing_extensions import override

from ditto.checkpoint.quantization.scheme import SCALE_DTYPES, Group, QuantizationScheme, modules_with, quantized
from ditto.checkpoint.reader import CheckpointReader


@frozen
class FineGrainedFp8(QuantizationScheme):
    """`weight` float8_e4m3fn, and `weight_scale_inv`, by which its blocks are multiplied.

    Args:
        block: rows and columns of a block.
    """

    title: ClassVar[str] = "fine-grained FP8"

    block: tuple[int, int]

    @staticmethod
    def of(config: Mapping[str, Any], where: str) -> FineGrainedFp8:
        """The scheme of a `quantization_config`.

        Raises:
            CheckpointError: it is a variant that is not read.
        """
        stated = config.get("weight_block_size", [128, 128])
        is_pair = isinstance(stated, (list, tuple)) and len(stated) == 2
        if not is_pair or not all(type(size) is int and size > 0 for size in stated):
            raise FineGrainedFp8(where, (128, 128)).refuse(f"weight_block_size is {stated!r}, not two sizes")
        scheme = FineGrainedFp8(where, (stated[0], stated[1]))
        if config.get("fmt", "e4m3") not in ("e4m3", "float8_e4m3fn"):
            raise scheme.refuse(f"the format {config['fmt']!r} is not read, 'e4m3' is")
        return scheme

    @property
    @override
    def note(self) -> str:
        return "activations are not quantised: products are computed with the dequantised weights"

    @override
    def groups(self, reader: CheckpointReader) -> dict[str, Group]:
        found: dict[str, Group] = {}
        for module in modules_with(self, reader, "weight_scale_inv"):
            values = module.stored("weight", (torch.float8_e4m3fn,), 2)
            scales = module.stored("weight_scale_inv", (*SCALE_DTYPES, torch.float8_e8m0fnu), 2)
            module.ignore("activation_scale", "input_scale")
            weight = quantized(module, values, scales, bits=8, block=self.block)
            found[f"{module.name}.weight"] = module.group(weight)
        return found
