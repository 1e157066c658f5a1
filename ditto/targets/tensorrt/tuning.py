"""Tuning parameters: forms and sizes that are fast on a GPU, by compute capability.

Measurements are in benchmarks/NOTES.md, under the headings in the comments below.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from ditto.engine.spec import DecodeAttention
from ditto.passes import SIMPLIFY, NetworkPass
from ditto.passes.bias_halves import BiasHalves
from ditto.passes.column_blocks import ColumnBlocks
from ditto.passes.rope_halves import RopeHalves
from ditto.passes.split_k import SplitK
from ditto.passes.transpose_chains import TransposeChains


@frozen(kw_only=True)
class Tuning:
    """Parameters of tuned passes and profiles for one GPU model; None or False omits a pass.

    Args:
        column_block: minimum columns of a block of a prefill matrix multiplication.
        split_k_shortest: minimum inner size of a part of a decode matrix multiplication.
        split_k_many_columns: from this many columns, a decode matrix multiplication has two parts, not four.
        alignment: block and part sizes are a multiple of this.
        transpose_chains: put the weight on the left of prefill matrix multiplications where this needs no transpose.
        rope_halves: decompose the rotary embedding of prefill.
        bias_halves: add biases before activations of a vision tower in halves.
        decode_products_from: engines for at least this many rows may compute decode attention in products, not in sums.
        decode_products_group: they do so if at least this many query heads share a KV head.
        kv_length_step: decode reads a multiple of this many KV cache slots. Each length has its own CUDA graph, and
            rows of a multiple of 256 values are read faster.
    """

    column_block: int | None = None
    split_k_shortest: int | None = None
    split_k_many_columns: int = 0
    alignment: int = 8
    transpose_chains: bool = False
    rope_halves: bool = False
    bias_halves: bool = False
    decode_products_from: int = 16
    decode_products_group: int = 4
    kv_length_step: int = 256

    @staticmethod
    def none() -> Tuning:
        """No tuned passes: for portable engines, and for libraries that time kernels during the build."""
        return Tuning()

    def vision_passes(self) -> tuple[NetworkPass, ...]:
        """Passes over a vision tower."""
        return _with_tuned((BiasHalves(),) if self.bias_halves else ())

    def prefill_passes(self) -> tuple[NetworkPass, ...]:
        """Passes over a language model for prefill."""
        tuned: list[NetworkPass] = [RopeHalves()] if self.rope_halves else []
        if self.blocks is not None:
            tuned += [TransposeChains(self.blocks), self.blocks] if self.transpose_chains else [self.blocks]
        return _with_tuned((*tuned, *self._split_k()))

    def decode_passes(self) -> tuple[NetworkPass, ...]:
        """Passes over a language model for decode."""
        return _with_tuned(self._split_k())

    def decode_attention(self, rows: int, group: int) -> DecodeAttention:
        """Form of decode attention of an engine.

        Args:
            rows: maximum number of rows per call.
            group: query heads per KV head.
        """
        is_shared = rows >= self.decode_products_from and group >= self.decode_products_group
        return "products" if is_shared else "sums"

    @property
    def blocks(self) -> ColumnBlocks | None:
        """Column blocking of prefill matrix multiplications; None if omitted."""
        return None if self.column_block is None else ColumnBlocks(self.column_block, self.alignment)

    @property
    def split_k(self) -> SplitK | None:
        """Split-K of decode matrix multiplications; None if omitted."""
        if self.split_k_shortest is None:
            return None
        return SplitK(self.split_k_shortest, self.split_k_many_columns, self.alignment)

    def _split_k(self) -> tuple[NetworkPass, ...]:
        return () if self.split_k is None else (self.split_k,)


def _with_tuned(passes: tuple[NetworkPass, ...]) -> tuple[NetworkPass, ...]:
    """Tuned passes, with simplification before and after them."""
    return (*SIMPLIFY, *passes, *SIMPLIFY) if passes else SIMPLIFY


# Measured with TensorRT-RTX 1.6.1 at static shapes of LLaVA-1.5-7B's sizes.
H200 = Tuning(
    column_block=2048,  # "A block at a time": 4096 and 1024 are 3 to 6 % slower
    split_k_shortest=512,  # "What the traces of single kernels showed"
    split_k_many_columns=8192,  # the same: four parts of so many columns gain nothing over two
    transpose_chains=True,  # "A block at a time": 5 to 20 % of prefill
    rope_halves=True,  # "What the traces of single kernels showed": 0.8 % of prefill at batch 4
    bias_halves=True,  # "On an H200": 11 of 98 us of a tower's block
    decode_products_from=16,  # "Decode attention by KV heads and rows": sums are faster up to 4 rows
    decode_products_group=4,  # the same: sums are faster at any number of rows if no query heads share a KV head
    kv_length_step=256,  # "What the traces of single kernels showed": steps of 128 read no faster
)

TUNINGS: Mapping[str, Tuning] = {"9.0": H200}
"""Tuning by compute capability; other GPUs have not been measured."""
