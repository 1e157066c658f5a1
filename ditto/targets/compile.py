"""Compilation of networks to engine files: profiles, builder settings, progress and errors."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path
from queue import SimpleQueue
from typing import Any, BinaryIO

from loguru import logger

from ditto import progress
from ditto.bindings import TensorRT
from ditto.checkpoint.mapped import Spool
from ditto.configs import TensorRTConfig
from ditto.engine import Profile
from ditto.errors import BuildError, ConfigError
from ditto.garbage import without_collection
from ditto.network import Spec, dims
from ditto.network.graph import Network
from ditto.network.weight import TensorSource
from ditto.progress import stage
from ditto.targets.allocator import keeping_freed_memory
from ditto.targets.emit import Emission, Messages

# Each compilation holds memory for its weights.
_MOST_AT_ONCE = 4
_RELEASE_SECONDS = 0.03
# Linux writes chunks of this size several times as fast as TensorRT's chunks of 64 MiB.
_WRITE_BYTES = 1 << 20


def shape_range(profile: Profile, spec: Spec) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Minimum, optimum and maximum shape of an input on a profile."""
    sizes = [{dim: getattr(range_, end) for dim, range_ in profile.ranges.items()} for end in ("min", "opt", "max")]
    smallest, optimal, largest = (tuple(dims.evaluate(dim, size) for dim in spec.shape) for size in sizes)
    return smallest, optimal, largest


def compute_capability(trt: TensorRT, name: str) -> Any:
    """TensorRT-RTX's enum value for a compute capability such as `8.9`.

    Raises:
        ConfigError: the library does not build for this capability, or cannot select capabilities at all.
    """
    known: Mapping[str, Any] = getattr(getattr(trt.module, "ComputeCapability", None), "__members__", {})
    named = {f"{key[2:-1]}.{key[-1]}": value for key, value in known.items() if key.startswith("SM")}
    if not named:
        raise ConfigError(
            f"{trt.title} builds for the GPU of this machine only",
            remedy="leave the compute capabilities out, or build with --target tensorrt-rtx",
        )
    if name not in named:
        raise ConfigError(
            f"{trt.title} does not build for compute capability {name}",
            remedy=f"choose from {', '.join(named)}, or leave it out for a portable engine",
        )
    return named[name]


def check_settings(trt: TensorRT, config: TensorRTConfig, capabilities: Sequence[str]) -> None:
    """Check settings before any work.

    Raises:
        ConfigError: the library lacks a setting.
    """
    for name in capabilities:
        compute_capability(trt, name)
    if not config.network_creation_flags.strongly_typed and not trt.is_weakly_typed:
        logger.info("{} builds strongly typed networks only: precision is stated explicitly", trt.title)


def compile_networks(
    parts: Sequence[Network],
    profiles: Sequence[Profile],
    source: TensorSource,
    trt: TensorRT,
    config: TensorRTConfig,
    capabilities: Sequence[str],
    paths: Sequence[Path],
) -> int:
    """Build an engine, with one file for each part of its network.

    Args:
        capabilities: compute capabilities to build for; none for a portable engine (TensorRT-RTX) or the GPU present.
        paths: the engine files, written as streams.
    Returns:
        The engine's size in bytes.
    Raises:
        BuildError: TensorRT rejects the network, or fails.
        ConfigError: the library lacks a setting.
    """
    with stage("compile", parts[0].name), without_collection():
        return _Compilation(profiles, source, trt, config, capabilities).run(parts, paths)


class _Compilation:
    """Compilation of the parts of an engine.

    TensorRT compiles a part in one thread, so TensorRT-RTX compiles several parts in parallel, at most one per core.
    """

    def __init__(
        self,
        profiles: Sequence[Profile],
        source: TensorSource,
        trt: TensorRT,
        config: TensorRTConfig,
        capabilities: Sequence[str],
    ) -> None:
        self._profiles, self._source, self._trt = profiles, source, trt
        self._config, self._capabilities = config, capabilities
        self._builders: SimpleQueue[_Builder] = SimpleQueue()
        self._emitting = threading.Lock()  # tensor sources are not thread-safe
        self._cancelled = threading.Event()
        self._spools: list[Spool] = []

    def run(self, parts: Sequence[Network], paths: Sequence[Path]) -> int:
        """Compile all parts; returns the total size in bytes.

        TensorRT runs in worker threads, and the main thread waits here for signals: the exception of a signal cannot
        pass through TensorRT's callbacks. After one, TensorRT stops at its next step.
        """
        done = _CombinedProgress(len(parts))
        # TensorRT, unlike TensorRT-RTX, times its kernels on the GPU, so nothing else may run there.
        count = at_once(len(parts)) if self._trt.library == "tensorrt_rtx" else 1
        for _ in range(count):
            self._builders.put(_Builder(self._trt))
        with keeping_freed_memory(), self._releasing_weights(), ThreadPoolExecutor(count) as pool:
            try:
                running = [
                    # Each task has a copy of the context, which holds the listeners of stages.
                    pool.submit(copy_context().run, self._compile, network, path, done.of(number))
                    for number, (network, path) in enumerate(zip(parts, paths, strict=True))
                ]
                return sum(future.result() for future in wait(running, return_when=FIRST_EXCEPTION).done)
            finally:
                self._cancelled.set()
                pool.shutdown(cancel_futures=True)

    def _compile(self, network: Network, path: Path, advance: Callable[[float], None]) -> int:
        spool = Spool(path.parent)
        self._spools.append(spool)
        builder = self._builders.get()
        try:
            with self._emitting:
                definition = builder.trt.create_network(_network_flags(self._trt, self._config))
                emission = Emission(self._trt, definition, self._source, builder.messages, spool.empty)
                emission.emit(network)
            settings = _builder_config(self._trt, builder.trt, self._config, self._capabilities)
            for profile in self._profiles:
                optimization_profile = builder.trt.create_optimization_profile()
                for name, spec in network.inputs.items():
                    optimization_profile.set_shape(name, *shape_range(profile, spec))
                settings.add_optimization_profile(optimization_profile)
            settings.progress_monitor = _progress_monitor(self._trt.module, self._cancelled, advance)
            size = _build(self._trt.module, builder.trt, definition, settings, path)
            if not size:
                raise BuildError(
                    f"{self._trt.title} could not build the {network.name} engine: {builder.messages.last()}",
                    remedy="run again with -vv for TensorRT's whole log",
                )
            return size
        finally:
            self._spools.remove(spool)
            self._builders.put(builder)

    @contextmanager
    def _releasing_weights(self) -> Generator[None]:
        """Release mapped weights while TensorRT builds, to keep resident memory low.

        TensorRT copies each weight once, at a time that is not known here.
        """
        done = threading.Event()

        def release() -> None:
            while not done.wait(_RELEASE_SECONDS):
                for source in (self._source, *self._spools):
                    source.release()

        thread = threading.Thread(target=release, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


class _Builder:
    """TensorRT's builder, reused for one network after another.

    Do not create or free one while another builds: TensorRT needs a lock for that which it also holds while it calls
    back into Python, so a thread that holds the GIL would deadlock (observed with TensorRT-RTX 1.6.1).
    """

    def __init__(self, trt: TensorRT) -> None:
        self.messages = Messages(trt.module)
        self.trt = trt.module.Builder(self.messages.log)


class _CombinedProgress:
    """Combined progress of several tasks."""

    def __init__(self, tasks: int) -> None:
        self._done, self._lock = [0.0] * tasks, threading.Lock()

    def of(self, task: int) -> Callable[[float], None]:
        """Callback for the progress of one task, from 0 to 1."""

        def advance(fraction: float) -> None:
            with self._lock:
                self._done[task] = max(self._done[task], fraction)
                progress.advance(sum(self._done) / len(self._done))

        return advance


def at_once(parts: int) -> int:
    """Maximum number of engine parts to compile in parallel."""
    return min(parts, len(os.sched_getaffinity(0)), _MOST_AT_ONCE)


def _network_flags(trt: TensorRT, config: TensorRTConfig) -> int:
    flags, module = 0, trt.module.NetworkDefinitionCreationFlag
    if config.network_creation_flags.strongly_typed or not trt.is_weakly_typed:
        flags |= 1 << int(module.STRONGLY_TYPED)
    return flags


def _builder_config(trt: TensorRT, builder: Any, config: TensorRTConfig, capabilities: Sequence[str]) -> Any:
    result, module, settings = builder.create_builder_config(), trt.module, config.builder_config
    if settings.tf32:
        result.set_flag(module.BuilderFlag.TF32)
    else:
        result.clear_flag(module.BuilderFlag.TF32)
    if not config.network_creation_flags.strongly_typed and trt.is_weakly_typed:
        for wanted, name in ((settings.fp16, "FP16"), (settings.bf16, "BF16")):
            if wanted:
                result.set_flag(getattr(module.BuilderFlag, name))
    if settings.builder_optimization_level is not None:
        result.builder_optimization_level = settings.builder_optimization_level
    if settings.max_aux_streams is not None:
        result.max_aux_streams = settings.max_aux_streams
    if settings.workspace_bytes is not None:
        result.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, settings.workspace_bytes)
    if capabilities:
        result.num_compute_capabilities = len(capabilities)
        for index, name in enumerate(capabilities):
            result.set_compute_capability(compute_capability(trt, name), index)
    return result


def _progress_monitor(module: Any, cancelled: threading.Event, advance: Callable[[float], None]) -> Any:
    """A TensorRT progress monitor that reports the outermost phase and stops a cancelled build."""

    class Monitor(module.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None:
                self._steps[phase_name] = max(num_steps, 1)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in self._steps:
                advance((step + 1) / self._steps[phase_name])
            return not cancelled.is_set()

        def phase_finish(self, phase_name: str) -> None:
            if self._steps.pop(phase_name, None):
                advance(1.0)

    return Monitor()


def _write(file: BinaryIO, data: Any) -> None:
    content = memoryview(data)
    for start in range(0, len(content), _WRITE_BYTES):
        file.write(content[start : start + _WRITE_BYTES])


def _build(module: Any, builder: Any, definition: Any, builder_config: Any, path: Path) -> int:
    if not hasattr(builder, "build_serialized_network_to_stream"):
        engine = builder.build_serialized_network(definition, builder_config)
        if engine is None:
            return 0
        with path.open("wb") as file:
            _write(file, engine)
        return int(engine.nbytes)
    with path.open("wb") as file, ThreadPoolExecutor(1) as pool:

        class Writer(module.IStreamWriter):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                module.IStreamWriter.__init__(self)
                self.size = 0
                self.error: OSError | None = None
                self.synced = pool.submit(os.fdatasync, file.fileno())

            def write(self, data: Any) -> int:
                try:
                    _write(file, data)
                    if self.synced.done():  # the disk writes while TensorRT produces the next chunk
                        self.synced.result()
                        file.flush()
                        self.synced = pool.submit(os.fdatasync, file.fileno())
                except OSError as error:  # an exception cannot pass through TensorRT: stored, and raised below
                    self.error = error
                    return 0
                self.size += len(data)
                return len(data)

        writer = Writer()
        done = builder.build_serialized_network_to_stream(definition, builder_config, writer)
        writer.synced.result()
        if writer.error is not None:
            raise writer.error
        return writer.size if done else 0
