"""Engines that PyTorch computes, in memory of the CPU: what a context is told by addresses and shapes alone."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence

import torch
from attrs import define, evolve, field, frozen
from torch import Tensor

from ditto.engine import EngineTree, Profile
from ditto.errors import DeviceError
from ditto.network import Network, Spec
from ditto.network.dims import evaluate
from ditto.network.schedule import load_schedule
from ditto.reference import Constants, run
from ditto.runtime.execution import Execution, Parts
from ditto.runtime.runtime_cache import RuntimeCache
from ditto.runtime.weights import bound_weights, network_of, weights_of
from tests.support.parts import in_shared_blocks


@frozen
class CpuEngine:
    """Stands in for `ditto.runtime.engine.Engine`.

    Args:
        network: what it computes.
        profiles: the optimization profiles.
        scratch_bytes: memory that it fills with rubbish whenever it runs.
        log: what its contexts did, also those of other engines.
    """

    network: Network
    constants: Constants
    profiles: Sequence[Profile]
    scratch_bytes: int = 1000
    log: list[CpuContext] = field(factory=list)

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(self.network.inputs)

    def context(self, profile: int, scratch: Tensor, eager: bool) -> CpuContext:
        """A way to run it."""
        assert scratch.numel() >= self.scratch_bytes
        return CpuContext(self, self.profiles[profile], scratch, eager)


@define(eq=False)
class CpuContext:
    """Stands in for `ditto.runtime.engine.Context`: the shapes and addresses that it has been told."""

    engine: CpuEngine
    profile: Profile
    scratch: Tensor
    eager: bool
    shapes: dict[str, tuple[int, ...]] = field(factory=dict)
    addresses: dict[str, int] = field(factory=dict)

    def take(self, name: str, shape: tuple[int, ...]) -> None:
        """Read an input of this shape, which the profile has to take."""
        spec, ranges = self.engine.network.inputs[name], self.profile.ranges
        smallest, largest = (
            [evaluate(dim, {named: getattr(size, end) for named, size in ranges.items()}) for dim in spec.shape]
            for end in ("min", "max")
        )
        if not all(low <= size <= high for low, size, high in zip(smallest, shape, largest, strict=True)):
            raise DeviceError(
                f"profile {self.profile.label()} takes {name} from {smallest} to {largest}, not {list(shape)}"
            )
        self.shapes[name] = shape

    def place(self, name: str, address: int) -> None:
        """Read from, or write to, this address."""
        assert name in self.engine.network.inputs or name in self.engine.network.outputs, name
        self.addresses[name] = address

    def enqueue(self) -> None:
        """Run. No output may lie where an input does, but for those that the network says share memory."""
        network, constants = self.engine.network, self.engine.constants
        self.engine.log.append(CpuContext(self.engine, self.profile, self.scratch, self.eager))
        self.engine.log[-1].shapes, self.engine.log[-1].addresses = dict(self.shapes), dict(self.addresses)
        self.scratch.fill_(255)
        read = {
            name: memory_at(self.addresses[name], self.shapes[name], spec.dtype)
            for name, spec in network.inputs.items()
        }
        for name, tensor in run(network, {name: memory.clone() for name, memory in read.items()}, constants).items():
            written = memory_at(self.addresses[name], tuple(tensor.shape), tensor.dtype)
            for other, memory in read.items():
                shares = network.shared.get(name) == other
                assert (written.data_ptr() == memory.data_ptr()) if shares else not _overlap(written, memory), (
                    f"{name} and {other}"
                )
            written.copy_(tensor)


class Late:
    """Stands in for `SideStream`: work is done as late as it may be, with what it was told at first."""

    def __init__(self, device: torch.device) -> None:
        del device
        self._last: Callable[[], None] | None = None

    def run(self, work: Callable[[], None]) -> None:
        self.join()
        context: CpuContext = work.__self__  # type: ignore[attr-defined]
        self._last = evolve(context, shapes=dict(context.shapes), addresses=dict(context.addresses)).enqueue

    def join(self) -> None:
        if self._last is not None:
            self._last()
            self._last = None


@define
class CpuEngines:
    """Stands in for `ditto.runtime.tensorrt.Loaded`, for a tree with external weights.

    Args:
        made: the profiles of executions so far.
    """

    tree: EngineTree
    made: list[str] = field(factory=list)
    scratch: Tensor = field(factory=lambda: torch.empty(1, dtype=torch.uint8))
    _parts: dict[str, Parts] = field(factory=dict)

    def execution(self, name: str, profile: int, eager: bool = True) -> Execution:
        """A new way to run a component on a profile, its weights bound."""
        parts = self._component(name)
        scratch = torch.empty(parts.scratch_bytes + (1 << 20), dtype=torch.uint8)[: parts.scratch_bytes]
        execution = parts.execution(profile, scratch, eager)
        execution.bind(dict(bound_weights(self.tree, name)))
        self.made.append(self.tree.component(name).spec.profiles[profile].label())
        return execution

    def _component(self, name: str) -> Parts:
        if name not in self._parts:
            component, network = self.tree.component(name), network_of(self.tree, name)
            constants = Constants(network, weights_of(self.tree, name))
            networks = in_shared_blocks(network).networks
            assert len(networks) == len(component.engine_files)
            engines = [CpuEngine(part, constants, component.spec.profiles) for part in networks]
            inputs = {key: Spec.parse(text) for key, text in component.inputs.items()}
            calls = load_schedule(self.tree.checked(name, "schedule.json"))
            self._parts[name] = Parts(engines, calls, inputs, component.spec.profiles, RuntimeCache(None))  # type: ignore[arg-type]
        return self._parts[name]


def memory_at(address: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Memory of the process as a tensor."""
    size = torch.empty(shape, dtype=dtype, device="meta").nbytes
    if not size:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer((ctypes.c_char * size).from_address(address), dtype=dtype).reshape(shape)


def _overlap(one: Tensor, other: Tensor) -> bool:
    (start, stop), (begin, end) = ((x.data_ptr(), x.data_ptr() + x.nbytes) for x in (one, other))
    return bool(one.nbytes and other.nbytes) and start < end and begin < stop
