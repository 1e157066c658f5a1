"""A component on the GPU: the calls of its engines, with tensors bound to them by name."""

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
from ditto.cache import cache_folder
from ditto.engine import EngineTree, Profile
from ditto.network import Spec
from ditto.network.calls import Call, Calls, load_calls
from ditto.network.dims import symbol
from ditto.runtime.activation_arena import ActivationArena, aligned
from ditto.runtime.engine import Context, Engine
from ditto.runtime.runtime_cache import RuntimeCache
from ditto.runtime.side_stream import SideStream

# The host launches a call of a recorded network in at most about an eighth of the time that the GPU needs for it.
_SHARE_OF_FIRST_STAGE = 8


class Parts:
    """A component's engines, one for each part of its network.

    Args:
        engines: loaded.
        calls: of them.
        inputs: specs of the whole component's.
        profiles: the optimization profiles of the engines.
        kernels: those that the engines were loaded with.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        calls: Calls,
        inputs: Mapping[str, Spec],
        profiles: Sequence[Profile],
        kernels: RuntimeCache,
    ) -> None:
        self._engines, self._calls, self._inputs, self._between = engines, calls, inputs, ActivationArena(calls)
        self._kernels = kernels
        weakref.finalize(self, kernels.save)  # what is compiled in the background after `keep_kernels`
        largest = ({name: size.max for name, size in profile.ranges.items()} for profile in profiles)
        self._beside = frozenset(call.part for call in calls.calls if call.beside)
        wanted = [(number in self._beside, engine.scratch_bytes) for number, engine in enumerate(engines)]
        self._work_bytes, self._beside_bytes = (
            aligned(max((size for beside, size in wanted if beside == which), default=0)) for which in (False, True)
        )
        self._between_bytes = max(self._between.laid_out(sizes)[1] for sizes in largest)

    @staticmethod
    def of(tree: EngineTree, name: str, trt: TensorRT, device: torch.device) -> Parts:
        """A component of a tree, loaded onto the current GPU.

        Raises:
            DeviceError: TensorRT does not load it here.
            TreeError: a file of it is damaged.
        """
        component = tree.component(name)
        kernels = RuntimeCache(_kernels_file(tree, name, device))
        engines = [Engine(trt, tree.checked(name, file), kernels) for file in component.engines]
        inputs = {key: Spec.parse(text) for key, text in component.inputs.items()}
        calls = load_calls(tree.checked(name, "calls.json"), len(engines))
        return Parts(engines, calls, inputs, component.profiles, kernels)

    @property
    def scratch_bytes(self) -> int:
        """Memory that the largest profile works in."""
        return self._work_bytes + self._beside_bytes + self._between_bytes

    def execution(self, profile: int, scratch: Tensor, eager: bool) -> Execution:
        """A way to run the component. A CUDA graph holds for the execution that it was recorded from only as long as
        nothing else is bound to that, so each graph has its own.

        Args:
            profile, scratch, eager: as `Engine.context` takes them; `scratch` of `scratch_bytes` here.
        Raises:
            DeviceError: TensorRT refuses.
        """
        work, beside, between = scratch.tensor_split((self._work_bytes, self._work_bytes + self._beside_bytes))
        parts = [
            _Part(engine.context(profile, beside if number in self._beside else work, eager), frozenset(engine.inputs))
            for number, engine in enumerate(self._engines)
        ]
        aside = SideStream(scratch.device) if self._beside else None
        return Execution(parts, self._calls.calls, self._inputs, self._between, between, aside)

    def keep_kernels(self) -> None:
        """Keep what was compiled so far for the next process."""
        self._kernels.keep()


@frozen
class _Part:
    context: Context
    inputs: frozenset[str]


class Execution:
    """A component on one profile, with tensors bound to its inputs and outputs."""

    def __init__(
        self,
        parts: Sequence[_Part],
        calls: Sequence[Call],
        inputs: Mapping[str, Spec],
        between: ActivationArena,
        memory: Tensor,
        aside: SideStream | None,
    ) -> None:
        self._runs = [(parts[call.part].context, tuple(call.tensors.items()), call.beside) for call in calls]
        self._inputs, self._between, self._memory, self._aside = inputs, between, memory, aside
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
        """Read inputs from, and write outputs to, these contiguous tensors on the GPU.

        Raises:
            DeviceError: a shape that the profile does not take.
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
        """Let go of tensors, that their memory may be freed; others have to be bound before the next run."""
        for name in names:
            self._bound.pop(name, None)

    @property
    def stages(self) -> tuple[Callable[[], None], ...]:
        """What `enqueue` does, cut once where there are several calls: behind as much as the GPU needs to be busy until
        the host has launched the rest."""
        first = len(self._runs) // _SHARE_OF_FIRST_STAGE
        cuts = [0, first, len(self._runs)] if first else [0, len(self._runs)]
        return tuple(partial(self._run, slice(start, stop)) for start, stop in itertools.pairwise(cuts))

    def enqueue(self) -> None:
        """Run, after the work that is in torch's current stream.

        Raises:
            DeviceError: TensorRT refuses.
        """
        self._run(slice(None))

    def _run(self, runs: slice) -> None:
        if not self._is_laid_out:
            places, _ = self._between.laid_out(self._sizes)
            for name, (offset, shape) in places.items():
                self._take(name, shape)
                self._addresses[name] = self._memory.data_ptr() + offset
            self._is_laid_out = True
        for context, tensors, beside in self._runs[runs]:
            for name, tensor in tensors:
                context.place(name, self._addresses[tensor])
            if self._aside is not None and beside:
                self._aside.run(context.enqueue)
            else:
                context.enqueue()
        if self._aside is not None:
            self._aside.join()

    def _take(self, name: str, shape: tuple[int, ...]) -> None:
        for context, known_as in self._readers.get(name, ()):
            context.take(known_as, shape)


def _kernels_file(tree: EngineTree, name: str, device: torch.device) -> Path | None:
    """Where a component's kernels are kept: under the digest of its engines and the name of the GPU."""
    folder = cache_folder()
    files = [tree.manifest.files[tree.listed(name, file)] for file in tree.component(name).engines]
    digest = hashlib.sha256(" ".join(file.sha256 for file in files).encode()).hexdigest()
    gpu = re.sub(r"\W+", "-", torch.cuda.get_device_name(device))
    return folder / "kernels" / f"{digest[:32]}-{gpu}.bin" if folder else None
