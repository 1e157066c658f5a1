"""A compiled engine on the GPU: read from its file, run in torch's current stream."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ditto.bindings import TensorRT
from ditto.errors import DeviceError
from ditto.runtime.runtime_cache import RuntimeCache
from ditto.targets.emit import Messages


class Engine:
    """An engine file, loaded onto the current GPU.

    Args:
        trt: the library that built it.
        path: of the file; mapped, so that TensorRT reads it from the page cache without a copy.
        kernels: what TensorRT-RTX compiles for it and its like.
    Raises:
        DeviceError: TensorRT does not load it here; the message is TensorRT's.
    """

    def __init__(self, trt: TensorRT, path: Path, kernels: RuntimeCache) -> None:
        self._trt, self._path, self._messages = trt, path, Messages(trt.module)
        self._runtime = trt.module.Runtime(self._messages.log)
        self._kernels = kernels
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            content.madvise(mmap.MADV_SEQUENTIAL)
            content.madvise(mmap.MADV_WILLNEED)
            self._engine = self._runtime.deserialize_cuda_engine(content)
        if self._engine is None:
            raise DeviceError(
                f"{trt.title} does not load the engine on this GPU: {self._messages.last()}",
                where=str(path),
                remedy="build the tree on this machine, or for this GPU with --compute-capability",
            )

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of its inputs, in the engine's order."""
        mode = self._trt.module.TensorIOMode.INPUT
        names = (self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors))
        return tuple(name for name in names if self._engine.get_tensor_mode(name) == mode)

    @property
    def scratch_bytes(self) -> int:
        """Memory that the largest of its profiles works in."""
        return int(self._engine.device_memory_size_v2)

    def context(self, profile: int, scratch: Tensor, eager: bool) -> Context:
        """A way to run the engine.

        Args:
            profile: index of the optimisation profile.
            scratch: memory to work in, of `scratch_bytes`; contexts that never run at the same time may share it.
            eager: compile kernels for new shapes at once rather than in the background (TensorRT-RTX). What is
                recorded in a CUDA graph must be compiled by then.
        Raises:
            DeviceError: TensorRT refuses.
        """
        module = self._trt.module
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(module.ExecutionContextAllocationStrategy.USER_MANAGED)
        if hasattr(module, "DynamicShapesKernelSpecializationStrategy"):
            strategies = module.DynamicShapesKernelSpecializationStrategy
            config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER if eager else strategies.LAZY
            self._kernels.give(config)
        context = self._engine.create_execution_context(config)
        stream = torch.cuda.current_stream().cuda_stream
        if context is None or not context.set_optimization_profile_async(profile, stream):
            raise self.refusal("cannot be run")
        context.set_device_memory(scratch.data_ptr(), scratch.numel())
        return Context(self, context, scratch)

    def meets(self, name: str, shape: tuple[int, ...]) -> None:
        """A context takes a shape."""
        self._kernels.meets((self._path, name, shape))

    def refusal(self, what: str) -> DeviceError:
        """TensorRT's last message as an error."""
        return DeviceError(f"the engine {what}: {self._messages.last()}", where=str(self._path))


class Context:
    """An engine on one profile; it keeps shapes and addresses from one run to the next."""

    def __init__(self, engine: Engine, context: Any, scratch: Tensor) -> None:
        self._engine, self._context, self._scratch = engine, context, scratch
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def take(self, name: str, shape: tuple[int, ...]) -> None:
        """Read an input of this shape.

        Raises:
            DeviceError: the profile does not take it.
        """
        if self._shapes.get(name) != shape:
            if not self._context.set_input_shape(name, shape):
                raise self._engine.refusal(f"does not take {name} as {list(shape)}")
            self._shapes[name] = shape
            self._engine.meets(name, shape)

    def place(self, name: str, address: int) -> None:
        """Read an input from, or write an output to, this address on the GPU.

        Raises:
            DeviceError: TensorRT refuses.
        """
        if self._addresses.get(name) != address:
            if not self._context.set_tensor_address(name, address):
                raise self._engine.refusal(f"does not take an address for {name}")
            self._addresses[name] = address

    def enqueue(self) -> None:
        """Run, after the work that is in torch's current stream.

        Raises:
            DeviceError: TensorRT refuses.
        """
        if not self._context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
            raise self._engine.refusal("failed")
