"""A compiled engine on the GPU, loaded from its file and run in torch's current stream."""

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
        path: the engine file; memory-mapped, so that TensorRT reads it from the page cache without a copy.
        kernels: cache of the kernels that TensorRT-RTX compiles for the engines of the component.
    Raises:
        DeviceError: TensorRT cannot load the engine here; the message is TensorRT's.
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
        """Input names, in the engine's order."""
        mode = self._trt.module.TensorIOMode.INPUT
        names = (self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors))
        return tuple(name for name in names if self._engine.get_tensor_mode(name) == mode)

    @property
    def scratch_bytes(self) -> int:
        """Device memory in bytes that the largest profile needs for execution."""
        return int(self._engine.device_memory_size_v2)

    def context(self, profile: int, scratch: Tensor, eager: bool) -> Context:
        """Create an execution context.

        Args:
            profile: index of the optimization profile.
            scratch: device memory of `scratch_bytes`; contexts that never run at the same time may share it.
            eager: compile kernels for new shapes at once, not in the background (TensorRT-RTX). A CUDA graph can
                record compiled kernels only.
        Raises:
            DeviceError: TensorRT cannot create the context.
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
        """Record that a context has an input of a shape."""
        self._kernels.meets((self._path, name, shape))

    def refusal(self, what: str) -> DeviceError:
        """An error with TensorRT's last message."""
        return DeviceError(f"the engine {what}: {self._messages.last()}", where=str(self._path))


class Context:
    """An execution context on one profile; it keeps shapes and addresses between runs."""

    def __init__(self, engine: Engine, context: Any, scratch: Tensor) -> None:
        self._engine, self._context, self._scratch = engine, context, scratch
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def take(self, name: str, shape: tuple[int, ...]) -> None:
        """Set the shape of an input.

        Raises:
            DeviceError: the profile does not accept the shape.
        """
        if self._shapes.get(name) != shape:
            if not self._context.set_input_shape(name, shape):
                raise self._engine.refusal(f"does not take {name} as {list(shape)}")
            self._shapes[name] = shape
            self._engine.meets(name, shape)

    def place(self, name: str, address: int) -> None:
        """Set the GPU address of an input or output.

        Raises:
            DeviceError: TensorRT rejects the address.
        """
        if self._addresses.get(name) != address:
            if not self._context.set_tensor_address(name, address):
                raise self._engine.refusal(f"does not take an address for {name}")
            self._addresses[name] = address

    def enqueue(self) -> None:
        """Launch the engine in torch's current stream.

        Raises:
            DeviceError: TensorRT cannot launch it.
        """
        if not self._context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
            raise self._engine.refusal("failed")
