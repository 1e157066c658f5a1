"""Where calls of an engine's parts put what they hand on."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping

from ditto.network import Spec
from ditto.network.calls import Calls
from ditto.network.dims import evaluate

# Of addresses, as CUDA's own allocator gives them.
ALIGNMENT = 256


def aligned(size: int) -> int:
    """The next multiple of `ALIGNMENT`."""
    return -(-size // ALIGNMENT) * ALIGNMENT


class ActivationArena:
    """Places for what calls hand on. A tensor's place is free again once its last reader has run, so that the blocks of
    a transformer, however many, need two of a kind. What runs beside others has run when the next of its kind has
    begun."""

    def __init__(self, calls: Calls) -> None:
        ends = _ends(calls)
        last: dict[str, int] = {}
        for number, call in enumerate(calls.calls):
            for name in call.tensors.values():
                last[name] = max(last.get(name, 0), ends[number])
        made: dict[str, None] = {}  # in order: places are the same in every process
        free: dict[Spec, list[int]] = defaultdict(list)
        self._specs: list[Spec] = []
        self._place: dict[str, int] = {}
        for number, call in enumerate(calls.calls):
            names = [name for name in call.tensors.values() if name in calls.between]
            for name in dict.fromkeys(names):
                if name not in made:
                    made[name] = None
                    self._place[name] = self._taken(calls.between[name], free)
            for name in made:
                if last[name] == number:
                    free[calls.between[name]].append(self._place[name])

    def _taken(self, spec: Spec, free: Mapping[Spec, list[int]]) -> int:
        if free[spec]:
            return free[spec].pop()
        self._specs.append(spec)
        return len(self._specs) - 1

    def laid_out(self, sizes: Mapping[str, int]) -> tuple[dict[str, tuple[int, tuple[int, ...]]], int]:
        """Offset in bytes and shape of each tensor, and the bytes of all places, for sizes of named dimensions."""
        offsets: list[int] = []
        shapes: list[tuple[int, ...]] = []
        end = 0
        for spec in self._specs:
            offsets.append(end)
            shapes.append(tuple(evaluate(dim, sizes) for dim in spec.shape))
            end += aligned(evaluate(spec.numel, sizes) * spec.dtype.itemsize)
        return {name: (offsets[place], shapes[place]) for name, place in self._place.items()}, end


def _ends(calls: Calls) -> list[int]:
    """For each call, the number of the one after which it has surely run."""
    ends = list(range(len(calls.calls)))
    beside = [number for number, call in enumerate(calls.calls) if call.beside]
    for number, following in itertools.pairwise([*beside, len(ends)]):
        ends[number] = following
    return ends
