"""Quantised formats: each turns groups of stored tensors into quantised weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ditto.checkpoint.quantization.awq import Awq
from ditto.checkpoint.quantization.compressed_tensors import CompressedTensors
from ditto.checkpoint.quantization.fp8 import FineGrainedFp8
from ditto.checkpoint.quantization.gptq import Gptq
from ditto.checkpoint.quantization.modelopt import ModelOpt
from ditto.checkpoint.quantization.scheme import FULL_PRECISION, Group, QuantizationScheme

__all__ = ["FORMATS", "FULL_PRECISION", "Group", "QuantizationScheme"]

FORMATS: Mapping[str, Callable[[Mapping[str, Any], str], QuantizationScheme]] = {
    "awq": Awq.of,
    "compressed-tensors": CompressedTensors.of,
    "fp8": FineGrainedFp8.of,
    "gptq": Gptq.of,
    "modelopt": ModelOpt.of,
}
"""Function from `quantization_config` and the file that states it to the scheme, by `quant_method`."""
