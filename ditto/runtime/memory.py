"""GPU memory needed to run a tree."""

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

# Bytes for the CUDA context, kernels and torch itself, which the plan does not count.
_RESERVE = 1 << 29


@frozen(kw_only=True)
class MemoryPlan:
    """GPU memory plan, in bytes.

    Args:
        weights: engines and external weights.
        scratch: execution memory of the engines.
        cache_row: KV cache of one row.
        rows: batch size.
        batches: batch sizes of the KV caches; other batch sizes use the next larger one.
    """

    weights: int
    scratch: int
    cache_row: int
    rows: int
    batches: tuple[int, ...]

    @staticmethod
    def of(tree: EngineTree, rows: int = 1) -> MemoryPlan:
        """Plan of a tree that is not loaded; `scratch` is 0, as it is unknown yet."""
        weights = sum(engine_bytes(tree, name) for name in tree.manifest.components) + external_bytes(tree)
        largest = RequestLimits.of(tree).max_batch_size
        batches = {decode_profile(tree, batch)[1] for batch in range(1, largest + 1)}
        return MemoryPlan(
            weights=weights, scratch=0, cache_row=cache_row_bytes(tree), rows=rows, batches=tuple(sorted(batches))
        )

    @property
    def needed(self) -> int:
        """Total bytes needed."""
        return self.loaded + self.cache_row * self.rows + _RESERVE

    @property
    def loaded(self) -> int:
        """Bytes in use once the engines are loaded."""
        return self.weights + self.scratch

    def with_scratch(self, scratch: int) -> MemoryPlan:
        return evolve(self, scratch=scratch)

    def with_rows(self, rows: int) -> MemoryPlan:
        return evolve(self, rows=rows)

    def check(self, free: int, total: int) -> None:
        """Check that the plan fits into `free` of `total` bytes.

        Raises:
            DeviceError: it does not fit; states the bytes needed and free, and what to lower.
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
    """Bytes of a component's engine files, 0 until they are compiled."""
    return sum(tree.manifest.files[tree.listed(name, file)].bytes for file in tree.component(name).engine_files)


def external_bytes(tree: EngineTree) -> int:
    """Bytes of a tree's external weights; weights that engines share count once."""
    weights = {weight for name in tree.manifest.components for weight in external_weights(tree, name).values()}
    return sum(math.prod(weight.shape) * weight.dtype.itemsize for weight in weights)


def cache_row_bytes(tree: EngineTree) -> int:
    """Bytes of the KV cache of one row."""
    component = tree.component("llm")
    return sum(_bytes(Spec.parse(component.inputs[past])) for past in component.shared.values())


def _bytes(spec: Spec) -> int:
    """Bytes of a tensor at batch size 1."""
    return evaluate(spec.numel, {"batch": 1}) * spec.dtype.itemsize
