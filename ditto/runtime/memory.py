"""What running a tree takes of a GPU's memory."""

from __future__ import annotations

import math

from attrs import evolve, frozen

from ditto.engine import EngineTree
from ditto.errors import DeviceError
from ditto.network import Spec
from ditto.network.dims import evaluate
from ditto.runtime.profiles import decode_profile
from ditto.runtime.session import RequestLimits
from ditto.runtime.weights import external_weights
from ditto.units import size_text

# What the CUDA context, kernels and torch itself take beside what is counted here.
_RESERVE = 1 << 29


@frozen(kw_only=True)
class MemoryPlan:
    """Bytes on the GPU.

    Args:
        weights: engines, and weights that are bound to them from outside.
        scratch: what engines work in.
        cache_row: KV cache of one row.
        rows: of the batch.
        batches: of how many rows there are caches; a batch between takes the next.
    """

    weights: int
    scratch: int
    cache_row: int
    rows: int
    batches: tuple[int, ...]

    @staticmethod
    def of(tree: EngineTree, rows: int = 1) -> MemoryPlan:
        """The plan of a tree before it is loaded; what its engines work in is not known yet."""
        weights = sum(engine_bytes(tree, name) for name in tree.manifest.components) + external_bytes(tree)
        largest = RequestLimits.of(tree).max_batch_size
        batches = {decode_profile(tree, batch)[1] for batch in range(1, largest + 1)}
        return MemoryPlan(
            weights=weights, scratch=0, cache_row=cache_row_bytes(tree), rows=rows, batches=tuple(sorted(batches))
        )

    @property
    def needed(self) -> int:
        """All of it."""
        return self.loaded + self.cache_row * self.rows + _RESERVE

    @property
    def loaded(self) -> int:
        """What is taken once the engines are loaded."""
        return self.weights + self.scratch

    def with_scratch(self, scratch: int) -> MemoryPlan:
        return evolve(self, scratch=scratch)

    def with_rows(self, rows: int) -> MemoryPlan:
        return evolve(self, rows=rows)

    def check(self, free: int, total: int) -> None:
        """Check that it fits into `free` of `total` bytes.

        Raises:
            DeviceError: it does not; says how much is missing, and what to lower.
        """
        if self.needed <= free:
            return
        cache = self.cache_row * self.rows
        fitting = [rows for rows in self.batches if self.with_rows(rows).needed <= free]
        if fitting:
            remedy = f"send at most {fitting[-1]} prompts at once, or build with a smaller --max-seq-len"
        else:
            remedy = "build with a smaller --max-seq-len or --max-input-len, or run on a GPU with more memory"
        raise DeviceError(
            f"too little GPU memory: {size_text(self.needed)} needed ({size_text(self.weights)} engines and weights, "
            f"{size_text(cache)} KV cache for {self.rows} rows, {size_text(self.scratch)} to work in), "
            f"{size_text(free)} of {size_text(total)} free",
            remedy=remedy,
        )


def engine_bytes(tree: EngineTree, name: str) -> int:
    """Bytes of a component's engine files, 0 while they are to be compiled."""
    return sum(tree.manifest.files[tree.listed(name, file)].bytes for file in tree.component(name).engines)


def external_bytes(tree: EngineTree) -> int:
    """Bytes of the weights that are bound to the tree's engines; those that engines share are bound once."""
    weights = {weight for name in tree.manifest.components for weight in external_weights(tree, name).values()}
    return sum(math.prod(weight.shape) * weight.dtype.itemsize for weight in weights)


def cache_row_bytes(tree: EngineTree) -> int:
    """Bytes of the KV cache of one row."""
    component = tree.component("llm")
    return sum(_bytes(Spec.parse(component.inputs[past])) for past in component.shared.values())


def _bytes(spec: Spec) -> int:
    """Of one row, where there are rows."""
    return evaluate(spec.numel, {"batch": 1}) * spec.dtype.itemsize
