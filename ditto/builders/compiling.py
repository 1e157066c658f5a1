"""A tree's engines: compiled one after the other in this process, or side by side in others."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Literal, Union

from ditto.builders.pipeline import Built, Job, Written, work
from ditto.builders.room import available_memory
from ditto.builders.workers import compile_side_by_side
from ditto.checkpoint import CheckpointReader
from ditto.network import Network
from ditto.targets import Target

Jobs = Union[int, Literal["auto"]]
# Layers times profiles of all engines but the longest: what can go on beside it. LLaVAs of 2 to 12 blocks on two cores:
# at 700 a build takes 1.3 s longer with two processes, at 1000 as long, at 1400 a second less, at 2600 a third less.
_WORTH_A_PROCESS = 1200
# What a process takes that compiles without weights.
WORKER_MEMORY = 1_000_000_000


def engines_at_a_time(described: Mapping[str, tuple[Job, Network | None]], target: Target, jobs: Jobs) -> int:
    """How many engines to compile at a time; 1: in this process.

    Several only where each weighs little and can be read from disk: weights outside, of a checkpoint.

    Args:
        jobs: at most so many; `auto`: as many as there are cores and memory for, if that is worth it.
    """
    parts = [(job, network) for job, network in described.values() if network is not None]
    light = all(job.weights_outside and isinstance(job.tensors, CheckpointReader) for job, _ in parts)
    if len(parts) < 2 or not light or not target.compiles_side_by_side or not sys.executable:
        return 1
    if jobs != "auto":
        return min(jobs, len(parts))
    beside = sorted(work(job, network) for job, network in parts)[:-1]
    if sum(beside) < _WORTH_A_PROCESS:
        return 1
    return max(1, min(len(parts), len(os.sched_getaffinity(0)), available_memory() // WORKER_MEMORY - 1))


def compile_all(written: Mapping[str, Written], target: Target, at_a_time: int) -> dict[str, Built]:
    """Compile the engines that are not there yet, where this machine can.

    Raises:
        DittoError: one could not be compiled.
    """
    built = {name: part.built for name, part in written.items()}
    if target.cannot_compile is not None:
        return built
    missing = {name: part for name, part in written.items() if part.built.library is None}
    if at_a_time > 1 and len(missing) > 1:
        made = compile_side_by_side((part.order for part in missing.values()), at_a_time)
    else:
        made = {name: part.order.fulfil_with(target, part.network, part.source) for name, part in missing.items()}
    return {**built, **{name: missing[name].with_engine(library) for name, library in made.items()}}
