"""Execution of a component on the GPU: calls of its engines, with tensors bound by name."""

from __future__ import annotations

import hashlib
import itertools
import re
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from attrs import frozen
from torch import Tensor

from ditto.bindings import TensorRT
from ditto.cache import cache_directory
from ditto.engine import EngineTree, Profile
from ditto.network import Spec
from ditto.network.dims import symbol
from ditto.network.schedule import Call, Schedule, load_schedule
from ditto.runtime.activation_arena import ActivationArena, aligned
from ditto.runtime.engine import Context, Engine
from ditto.runtime.runtime_cache import RuntimeCache
from ditto.runtime.side_stream import SideStream

# The host launches a call of a CUDA graph in at most about an eighth of the time that the GPU runs it.
_SHARE_OF_FIRST_STAGE = 8


class Parts:
    """Engines of a component, one for each part of its network.

    Args:
        engines: the loaded engines.
        schedule: calls of the engines.
        inputs: input specs of the whole component.
        profiles: optimization profiles of the engines.
        kernels: kernel cache that the engines were loaded with.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        schedule: Schedule,
        inputs: Mapping[str, Spec],
        profiles: Sequence[Profile],
        kernels: RuntimeCache,
    ) -> None:
        self._engines, self._schedule, self._inputs, self._arena = engines, schedule, inputs, ActivationArena(schedule)
        self._kernels = kernels
        weakref.finalize(self, kernels.save)  # kernels compiled in the background after `keep_kernels`
        largest = ({name: size.max for name, size in profile.ranges.items()} for profile in profiles)
        self._concurrent = frozenset(call.part for call in schedule.calls if call.concurrent)
        wanted = [(number in self._concurrent, engine.scratch_bytes) for number, engine in enumerate(engines)]
        self._work_bytes, self._concurrent_bytes = (
            aligned(max((size for concurrent, size in wanted if concurrent == which), default=0))
            for which in (False, True)
        )
        self._activation_bytes = max(self._arena.laid_out(sizes)[1] for sizes in largest)

    @staticmethod
    def of(tree: EngineTree, name: str, trt: TensorRT, device: torch.device) -> Parts:
        """Load a component of a tree onto the current GPU.

        Raises:
            DeviceError: TensorRT cannot load the component here.
            TreeError: a file of the component is damaged.
        """
        component = tree.component(name)
        kernels = RuntimeCache(_kernels_file(tree, name, device))
        engines = [Engine(trt, tree.checked(name, file), kernels) for file in component.engine_files]
        inputs = {key: Spec.parse(text) for key, text in component.inputs.items()}
        schedule = load_schedule(tree.checked(name, "schedule.json"), len(engines))
        return Parts(engines, schedule, inputs, component.spec.profiles, kernels)

    @property
    def scratch_bytes(self) -> int:
        """Device memory in bytes that the largest profile needs for execution."""
        return self._work_bytes + self._concurrent_bytes + self._activation_bytes

    def execution(self, profile: int, scratch: Tensor, eager: bool) -> Execution:
        """Create an execution of the component.

        A CUDA graph stays valid only while the tensors of its execution stay bound, so each graph needs its own.

        Args:
            profile, scratch, eager: as in `Engine.context`; `scratch` has this component's `scratch_bytes`.
        Raises:
            DeviceError: TensorRT cannot create a context.
        """
        work, concurrent, activations = scratch.tensor_split(
            (self._work_bytes, self._work_bytes + self._concurrent_bytes)
        )
        parts = [
            _Part(
                engine.context(profile, concurrent if number in self._concurrent else work, eager),
                frozenset(engine.inputs),
            )
            for number, engine in enumerate(self._engines)
        ]
        side_stream = SideStream(scratch.device) if self._concurrent else None
        return Execution(parts, self._schedule.calls, self._inputs, self._arena, activations, side_stream)

    def keep_kernels(self) -> None:
        """Save the kernels compiled so far for the next process."""
        self._kernels.keep()


@frozen
class _Part:
    context: Context
    inputs: frozenset[str]


class Execution:
    """Execution of a component on one profile, with tensors bound to inputs and outputs."""

    def __init__(
        self,
        parts: Sequence[_Part],
        calls: Sequence[Call],
        inputs: Mapping[str, Spec],
        arena: ActivationArena,
        memory: Tensor,
        side_stream: SideStream | None,
    ) -> None:
        self._runs = [(parts[call.part].context, tuple(call.tensors.items()), call.concurrent) for call in calls]
        self._inputs, self._arena, self._memory, self._side_stream = inputs, arena, memory, side_stream
        self._readers: dict[str, set[tuple[Context, str]]] = {}
        for call in calls:
            for name, tensor in call.tensors.items():
                if name in parts[call.part].inputs:
                    self._readers.setdefault(tensor, set()).add((parts[call.part].context, name))
        self._bound: dict[str, Tensor] = {}
        self._addresses: dict[str, int] = {}
        self._sizes: dict[str, int] = {}
        self._is_laid_out = False

    def bind(self, tensors: Mapping[str, Tensor]) -> None:
        """Bind contiguous GPU tensors to inputs and outputs.

        Raises:
            DeviceError: the profile does not accept a shape.
        """
        for name, tensor in tensors.items():
            if self._bound.get(name) is tensor:
                continue
            assert tensor.is_cuda and tensor.is_contiguous(), name
            self._take(name, tuple(tensor.shape))
            self._bound[name], self._addresses[name] = tensor, tensor.data_ptr()
            for size, dim in zip(tensor.shape, self._inputs[name].shape if name in self._inputs else ()):
                if dim == symbol(str(dim)) and self._sizes.get(str(dim)) != size:
                    self._sizes[str(dim)], self._is_laid_out = size, False

    def unbind(self, names: Iterable[str]) -> None:
        """Release tensors so that their memory can be freed; bind others before the next run."""
        for name in names:
            self._bound.pop(name, None)

    @property
    def stages(self) -> tuple[Callable[[], None], ...]:
        """The work of `enqueue` in stages, each one callable.

        Several calls are two stages: the first keeps the GPU busy until the host has launched the second.
        """
        first = len(self._runs) // _SHARE_OF_FIRST_STAGE
        cuts = [0, first, len(self._runs)] if first else [0, len(self._runs)]
        return tuple(partial(self._run, slice(start, stop)) for start, stop in itertools.pairwise(cuts))

    def enqueue(self) -> None:
        """Launch all calls in torch's current stream.

        Raises:
            DeviceError: TensorRT cannot launch a call.
        """
        self._run(slice(None))

    def _run(self, runs: slice) -> None:
        if not self._is_laid_out:
            places, _ = self._arena.laid_out(self._sizes)
            for name, (offset, shape) in places.items():
                self._take(name, shape)
                self._addresses[name] = self._memory.data_ptr() + offset
            self._is_laid_out = True
        for context, tensors, concurrent in self._runs[runs]:
            for name, tensor in tensors:
                context.place(name, self._addresses[tensor])
            if self._side_stream is not None and concurrent:
                self._side_stream.run(context.enqueue)
            else:
                context.enqueue()
        if self._side_stream is not None:
            self._side_stream.join()

    def _take(self, name: str, shape: tuple[int, ...]) -> None:
        for context, known_as in self._readers.get(name, ()):
            context.take(known_as, shape)


def _kernels_file(tree: EngineTree, name: str, device: torch.device) -> Path | None:
    """Kernel cache file of a component, named after the digest of its engines and the GPU."""
    directory = cache_directory()
    files = [tree.manifest.files[tree.listed(name, file)] for file in tree.component(name).engine_files]
    digest = hashlib.sha256(" ".join(file.sha256 for file in files).encode()).hexdigest()
    gpu = re.sub(r"\W+", "-", torch.cuda.get_device_name(device))
    return directory / "kernels" / f"{digest[:32]}-{gpu}.bin" if directory else None
