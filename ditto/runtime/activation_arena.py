"""Memory plan for the intermediate tensors of a partitioned engine."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping

from ditto.network import Spec
from ditto.network.dims import evaluate
from ditto.network.schedule import Schedule

# Alignment of addresses in bytes, the same as in CUDA's own allocator.
ALIGNMENT = 256


def aligned(size: int) -> int:
    """The next multiple of `ALIGNMENT`."""
    return -(-size // ALIGNMENT) * ALIGNMENT


class ActivationArena:
    """Memory plan for tensors that one call writes and later calls read.

    Memory of a tensor is reused after its last reader has run: the blocks of a transformer, however many, need two
    buffers for each spec. A call on the side stream has run once the next call on the side stream has begun.
    """

    def __init__(self, schedule: Schedule) -> None:
        ends = _ends(schedule)
        last: dict[str, int] = {}
        for number, call in enumerate(schedule.calls):
            for name in call.tensors.values():
                last[name] = max(last.get(name, 0), ends[number])
        produced: dict[str, None] = {}  # ordered: the plan is the same in every process
        free: dict[Spec, list[int]] = defaultdict(list)
        self._specs: list[Spec] = []
        self._place: dict[str, int] = {}
        for number, call in enumerate(schedule.calls):
            names = [name for name in call.tensors.values() if name in schedule.between]
            for name in dict.fromkeys(names):
                if name not in produced:
                    produced[name] = None
                    self._place[name] = self._allocate(schedule.between[name], free)
            for name in produced:
                if last[name] == number:
                    free[schedule.between[name]].append(self._place[name])

    def _allocate(self, spec: Spec, free: Mapping[Spec, list[int]]) -> int:
        if free[spec]:
            return free[spec].pop()
        self._specs.append(spec)
        return len(self._specs) - 1

    def laid_out(self, sizes: Mapping[str, int]) -> tuple[dict[str, tuple[int, tuple[int, ...]]], int]:
        """Offset in bytes and shape of each tensor, and total bytes, for sizes of named dimensions."""
        offsets: list[int] = []
        shapes: list[tuple[int, ...]] = []
        end = 0
        for spec in self._specs:
            offsets.append(end)
            shapes.append(tuple(evaluate(dim, sizes) for dim in spec.shape))
            end += aligned(evaluate(spec.numel, sizes) * spec.dtype.itemsize)
        return {name: (offsets[place], shapes[place]) for name, place in self._place.items()}, end


def _ends(schedule: Schedule) -> list[int]:
    """Index of the call after which each call is guaranteed to have run."""
    ends = list(range(len(schedule.calls)))
    concurrent = [number for number, call in enumerate(schedule.calls) if call.concurrent]
    for number, following in itertools.pairwise([*concurrent, len(ends)]):
        ends[number] = following
    return ends
