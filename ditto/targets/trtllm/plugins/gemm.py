"""Gemm: matrix multiplication with cuBLASLt (contract, LLM 3.2)."""

from __future__ import annotations

from typing import ClassVar

import torch
from attrs import frozen
from torch import Tensor
from typing_extensions import override

from ditto.errors import ShapeError
from ditto.network.plugin import Plugin, PluginField
from ditto.network.spec import Spec, same_dtype
from ditto.targets.trtllm.contract import TYPE_ID
from ditto.targets.trtllm.versions import GEMM_FIELDS


@frozen(kw_only=True)
class Gemm(Plugin):
    """Product of x [T, K] and the transpose of a weight [N, K]: [T, N]."""

    creator: ClassVar[str] = "Gemm"
    layer_name: ClassVar[str] = "gemm"
    namespace: ClassVar[str] = "tensorrt_llm"

    dtype: torch.dtype
    transa: int = 0
    transb: int = 1
    pad_lda: int = 0
    pad_ldb: int = 0
    pad_ldc: int = 0
    use_fp8: int = 0
    alpha: float = 1.0

    @property
    def type_id(self) -> int:
        """TensorRT's number for the dtype."""
        return TYPE_ID[self.dtype]

    @override
    def fields(self) -> tuple[PluginField, ...]:
        return tuple(PluginField(name, kind, (getattr(self, name),)) for name, kind in GEMM_FIELDS)

    @override
    def infer(self, x: Spec, weight: Spec) -> Spec:
        if same_dtype(x.floating().of_rank(2), weight.of_rank(2)) != self.dtype:
            raise ShapeError(f"Gemm computes in {self.dtype}, got {x}")
        if x.shape[1] != weight.shape[1]:
            raise ShapeError(f"inner sizes of {x} and weight {weight} differ")
        return x.with_shape((x.shape[0], weight.shape[0]))

    @override
    def reference(self, x: Tensor, weight: Tensor) -> Tensor:
        return torch.nn.functional.linear(x, weight)
