"""From a network to engine bytes in a file: profiles, builder settings, progress, TensorRT's messages translated."""

from __future__ import annotations

import ctypes
import itertools
import os
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path
from typing import Any, BinaryIO

import torch
from attrs import frozen
from loguru import logger

from ditto import progress
from ditto.arguments import DynamicDimension
from ditto.bindings import TensorRT
from ditto.checkpoint.mapped import Spool
from ditto.configs import TensorRTConfig
from ditto.errors import BuildError, ConfigError
from ditto.network import dims
from ditto.network.graph import Network
from ditto.network.layers import Attention
from ditto.network.weight import TensorSource
from ditto.progress import stage
from ditto.targets.emit import Emission, Messages, without_collection

_RELEASE_SECONDS = 0.0015
# Linux takes pieces of this size several times as fast as TensorRT's, of 64 MiB.
_WRITE_BYTES = 1 << 20
_TICKS_PER_TRIM = 33
# glibc's; other allocators give memory back by themselves, or not at all.
_libc = ctypes.CDLL(None)
_trim: Callable[[int], int] = getattr(_libc, "malloc_trim", lambda keep: keep)
_mallopt: Callable[[int, int], int] = getattr(_libc, "mallopt", lambda parameter, value: value)
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGE_BLOCK = 4 << 20
_LARGEST_BLOCK = 32 << 20  # glibc raises its threshold to this, as such blocks are freed, and trims at twice that


@frozen
class Profile:
    """An optimisation profile: the ranges of named dimensions that an engine is tuned for at once."""

    name: str
    ranges: Mapping[str, DynamicDimension]

    def shapes(self, network: Network, name: str) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Smallest, usual and largest shape of an input."""
        spec = network.inputs[name]
        sizes = [{dim: getattr(range_, end) for dim, range_ in self.ranges.items()} for end in ("min", "opt", "max")]
        smallest, usual, largest = (tuple(dims.evaluate(dim, size) for dim in spec.shape) for size in sizes)
        return smallest, usual, largest


def compute_capability(trt: TensorRT, name: str) -> Any:
    """TensorRT-RTX's value for a compute capability such as `8.9`.

    Raises:
        ConfigError: the library does not build for it, or for named capabilities at all.
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
    """Check what can be checked before any work.

    Raises:
        ConfigError: a setting that the library does not have.
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
    """Build an engine, each part of its network into a file.

    Args:
        capabilities: compute capabilities to build for; none for a portable engine (TensorRT-RTX) or the GPU present.
        paths: of the files, written as streams.
    Returns:
        The engine's size in bytes.
    Raises:
        BuildError: TensorRT refuses the network, or fails.
        ConfigError: a setting that the library does not have.
    """
    with stage("compile", parts[0].name), without_collection():
        sizes = [
            _compile(network, profiles, source, trt, config, capabilities, path, (number, len(parts)))
            for number, (network, path) in enumerate(zip(parts, paths, strict=True))
        ]
        return sum(sizes)


def _compile(
    network: Network,
    profiles: Sequence[Profile],
    source: TensorSource,
    trt: TensorRT,
    config: TensorRTConfig,
    capabilities: Sequence[str],
    path: Path,
    turn: tuple[int, int],
) -> int:
    messages = Messages(trt.module)
    builder = trt.module.Builder(messages.log)
    definition = builder.create_network(_network_flags(trt, config))
    spool = Spool(path.parent)
    emission = Emission(trt, definition, source, messages, spool.empty)
    emission.emit(network)
    builder_config = _builder_config(trt, builder, config, capabilities)
    for profile in profiles:
        made = builder.create_optimization_profile()
        for name in network.inputs:
            made.set_shape(name, *profile.shapes(network, name))
        builder_config.add_optimization_profile(made)
    cancelled = threading.Event()
    builder_config.progress_monitor = _progress_monitor(trt.module, cancelled, turn)
    with _letting_go(source, spool):
        size = _in_background(lambda: _build(trt.module, builder, definition, builder_config, path), cancelled)
    if not size:
        raise BuildError(
            f"{trt.title} could not build the {network.name} engine: {messages.last()}", remedy=_remedy(network)
        )
    return size


def _remedy(network: Network) -> str:
    """What to do about a build that failed. With some networks TensorRT-RTX 1.6 fails on attention in half precision
    whose heads are no multiple of 8 wide."""
    queries = [network.value(node.inputs[0]).spec for node in network.nodes if isinstance(node.layer, Attention)]
    widths = {query.shape[3] for query in queries if query.dtype != torch.float32}
    odd = sorted(str(width) for width in widths if isinstance(width, int) and width % 8)
    log = "run again with -vv for TensorRT's whole log"
    return f"heads are {', '.join(odd)} wide, no multiple of 8: build in float32; or {log}" if odd else log


@contextmanager
def _letting_go(*sources: TensorSource | Spool) -> Generator[None]:
    """Keep resident memory low while TensorRT builds: it copies each mapped weight once, in its own time, and what it
    took for one step would stay with the allocator in the next."""
    done = threading.Event()
    _mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK)  # blocks from here on go back to the system when they are freed
    _mallopt(_M_TRIM_THRESHOLD, _LARGE_BLOCK)

    def release() -> None:
        for tick in itertools.count():
            if done.wait(_RELEASE_SECONDS):
                return
            for source in sources:
                source.release()
            if not tick % _TICKS_PER_TRIM:
                _trim(0)

    thread = threading.Thread(target=release, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        _mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK)
        _mallopt(_M_TRIM_THRESHOLD, 2 * _LARGEST_BLOCK)


def _in_background(work: Callable[[], int], cancelled: threading.Event) -> int:
    """Run TensorRT in a thread of its own. Signals are answered in the main thread, which waits here: an exception of
    theirs must not meet one of TensorRT's callbacks, through which none can pass. TensorRT then stops at its next step.
    """
    context = copy_context()  # whoever listens to stages
    with ThreadPoolExecutor(1) as pool:
        try:
            return pool.submit(context.run, work).result()
        finally:
            cancelled.set()


def _network_flags(trt: TensorRT, config: TensorRTConfig) -> int:
    flags, module = 0, trt.module.NetworkDefinitionCreationFlag
    if config.network_creation_flags.strongly_typed or not trt.is_weakly_typed:
        flags |= 1 << int(module.STRONGLY_TYPED)
    return flags


def _builder_config(trt: TensorRT, builder: Any, config: TensorRTConfig, capabilities: Sequence[str]) -> Any:
    made, module, settings = builder.create_builder_config(), trt.module, config.builder_config
    if settings.tf32:
        made.set_flag(module.BuilderFlag.TF32)
    else:
        made.clear_flag(module.BuilderFlag.TF32)
    if not config.network_creation_flags.strongly_typed and trt.is_weakly_typed:
        for wanted, name in ((settings.fp16, "FP16"), (settings.bf16, "BF16")):
            if wanted:
                made.set_flag(getattr(module.BuilderFlag, name))
    if settings.builder_optimization_level is not None:
        made.builder_optimization_level = settings.builder_optimization_level
    if settings.max_aux_streams is not None:
        made.max_aux_streams = settings.max_aux_streams
    if settings.workspace_bytes is not None:
        made.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, settings.workspace_bytes)
    if capabilities:
        made.num_compute_capabilities = len(capabilities)
        for index, name in enumerate(capabilities):
            made.set_compute_capability(compute_capability(trt, name), index)
    return made


def _progress_monitor(module: Any, cancelled: threading.Event, turn: tuple[int, int]) -> Any:
    """Passes the outermost phase's steps on to whoever listens, as one turn of several, and tells TensorRT to stop once
    that is wanted."""
    before, turns = turn

    class Monitor(module.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None:
                self._steps[phase_name] = max(num_steps, 1)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in self._steps:
                progress.advance((before + (step + 1) / self._steps[phase_name]) / turns)
            return not cancelled.is_set()

        def phase_finish(self, phase_name: str) -> None:
            if self._steps.pop(phase_name, None):
                progress.advance((before + 1) / turns)

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
                    if self.synced.done():  # the disk is at work while TensorRT makes the next piece
                        self.synced.result()
                        file.flush()
                        self.synced = pool.submit(os.fdatasync, file.fileno())
                except OSError as error:  # an exception cannot pass through TensorRT: kept, and raised below
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
