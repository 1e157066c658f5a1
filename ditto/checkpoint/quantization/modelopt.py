"""ModelOpt: FP8, NVFP4, INT4 (AWQ) and INT8 (SmoothQuant) weights of NVIDIA's Model Optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from attrs import frozen
from typing_extensions import override

from ditto.checkpoint.quantization.scheme import (
    SCALE_DTYPES,
    Group,
    ModuleTensors,
    QuantizationScheme,
    column,
    e2m1_matrix,
    modules_with,
    quantized,
    transposed,
)
from ditto.checkpoint.reader import CheckpointReader
from ditto.network.quantized import QuantizedWeight
from ditto.network.weight import Weight, fold

# Scales of activations and of the KV cache, which the engine keeps in float.
_FLOAT_IN_ENGINES = ("input_scale", "k_scale", "v_scale", "output_scale")


@frozen
class ModelOpt(QuantizationScheme):
    """Files that ModelOpt exports for Hugging Face's form; all scales multiply.

    Args:
        algorithm: ModelOpt's `quant_algo`, a key of `_READERS`.
        has_kv_cache: whether the KV cache is quantised, too.
    """

    title: ClassVar[str] = "ModelOpt"

    algorithm: str
    has_kv_cache: bool

    @staticmethod
    def of(config: Mapping[str, Any], where: str) -> ModelOpt:
        """The scheme of a `quantization_config`, or of the `quantization` in hf_quant_config.json.

        Raises:
            CheckpointError: it is a variant that is not read.
        """
        stated = config.get("quantization", config)
        stated = stated if isinstance(stated, dict) else {}
        algorithm = stated.get("quant_algo")
        has_kv_cache = bool(stated.get("kv_cache_quant_algo") or stated.get("kv_cache_scheme"))
        scheme = ModelOpt(where, str(algorithm), has_kv_cache)
        if algorithm not in _READERS:
            raise scheme.refuse(f"the algorithm {algorithm!r} is not read, {', '.join(_READERS)} are")
        return scheme

    @property
    @override
    def note(self) -> str | None:
        float_parts = ["activations"] * (self.algorithm != "W4A16_AWQ") + ["the KV cache"] * self.has_kv_cache
        if not float_parts:
            return None
        verb = "is" if float_parts == ["the KV cache"] else "are"
        return f"{' and '.join(float_parts)} {verb} not quantised: products are computed with the dequantised weights"

    @override
    def groups(self, reader: CheckpointReader) -> dict[str, Group]:
        found: dict[str, Group] = {}
        for module in modules_with(self, reader, "weight_scale"):
            weight = _READERS[self.algorithm](module)
            input_scale = None
            if "pre_quant_scale" in module.records:
                input_scale = module.stored("pre_quant_scale", SCALE_DTYPES, 1)
                if input_scale.shape != weight.shape[1:]:
                    raise module.refuse(f"has `pre_quant_scale` of shape {list(input_scale.shape)}")
            module.ignore(*_FLOAT_IN_ENGINES)
            found[f"{module.name}.weight"] = module.group(weight, input_scale)
        return found


def _fp8(module: ModuleTensors) -> QuantizedWeight:
    values = module.stored("weight", (torch.float8_e4m3fn,), 2)
    scales = column(module.stored("weight_scale", SCALE_DTYPES, 0, 1))
    rows, columns = values.shape
    return quantized(module, values, scales, bits=8, block=(rows, columns))


def _by_row(dtype: torch.dtype) -> Callable[[ModuleTensors], QuantizedWeight]:
    """Reader of values of `dtype` with a scale for each row."""

    def read(module: ModuleTensors) -> QuantizedWeight:
        values = module.stored("weight", (dtype,), 2)
        scales = column(module.stored("weight_scale", SCALE_DTYPES, 1))
        return quantized(module, values, scales, bits=8, block=(1, values.shape[1]))

    return read


def _nvfp4(module: ModuleTensors) -> QuantizedWeight:
    """Two E2M1 values in a byte; scales of 16 columns in FP8, and one of the matrix."""
    values = e2m1_matrix(module.stored("weight", (torch.uint8,), 2))
    of_groups = module.stored("weight_scale", (torch.float8_e4m3fn,), 2)
    of_matrix = column(module.stored("weight_scale_2", (torch.float32,), 0, 1))
    scales = fold("multiply", fold("cast", of_groups, torch.float32), of_matrix)
    return quantized(module, values, scales, bits=8, block=(1, 16))


def _int4(module: ModuleTensors) -> QuantizedWeight:
    """Two rows in a byte, the first in the lower half; scales of groups of columns."""
    packed: Weight = module.stored("weight", (torch.uint8,), 2)
    values = transposed(fold("unpack_signed", transposed(packed)))
    scales = module.stored("weight_scale", SCALE_DTYPES, 2)
    columns, count = values.shape[1], scales.shape[1]
    if count < 1 or columns % count:
        raise module.refuse(f"has {count} groups of scales for {columns} columns")
    return quantized(module, values, scales, bits=4, block=(1, columns // count))


_READERS: Mapping[str, Callable[[ModuleTensors], QuantizedWeight]] = {
    "FP8": _fp8,
    "FP8_PER_CHANNEL_PER_TOKEN": _by_row(torch.float8_e4m3fn),
    "NVFP4": _nvfp4,
    "W4A16_AWQ": _int4,
    "W8A8_SQ_PER_CHANNEL": _by_row(torch.int8),
}
