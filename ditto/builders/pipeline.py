"""Stages of a build: capture, rewrite, lower, write, compile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from attrs import evolve, frozen
from safetensors.torch import save_file
from torch import nn

from ditto.arguments import TensorTypeHint
from ditto.builders.engine_cache import EngineCache
from ditto.capture import export
from ditto.configs import TensorRTConfig
from ditto.dumps import dump, dumping_part
from ditto.engine import Component, Profile, engine_files
from ditto.engine.config import LlmConfig, VisionConfig, write_config
from ditto.garbage import without_collection
from ditto.network import Network, check, network_text, save
from ditto.network.schedule import save_schedule
from ditto.network.weight import TensorSource, stored_names
from ditto.passes import SIMPLIFY, NetworkPass, run_passes
from ditto.passes.partition import Partition, PartitionMode, partition
from ditto.program import Program, program_text
from ditto.progress import stage
from ditto.rewrite import rewrite
from ditto.targets import Target


@frozen(kw_only=True)
class Job:
    """All decisions about an engine, made before its build starts.

    Args:
        name: name of the component.
        wrapper: module that is captured; `prefix` is its prefix of the user's module paths.
        inputs, output_names: inputs and output names of the wrapper.
        dtype: dtype of floating-point parameters.
        sizes: largest values of named dimensions over an engine's lifetime.
        positions: name of the input with token positions; None for a vision tower.
        attentions: number of self-attention layers of a decoder, each with a KV cache; None for a vision tower.
        joins: whether linear layers with the same input are fused.
        lower: function from the rewritten program to the network.
        passes: passes over the network, in order.
        profiles: optimization profiles of the engine.
        kv_length_step: as in the manifest.
        config: function from the network to the contents of config.json.
        tensors: provider of the checkpoint's values.
        keep_weights: also write the weights to the tree, for a model that is not on disk.
        external_weights: the large weights are inputs of the engine.
        cache_bytes: size of the KV cache at the chosen limits.
        more: additional engines of the same program that share this engine's weights.
        beside: whether this is such an engine; config.json and kept weights are then in the parent directory.
    """

    name: str
    wrapper: nn.Module
    prefix: str
    inputs: Mapping[str, TensorTypeHint]
    output_names: Sequence[str]
    dtype: torch.dtype
    sizes: Mapping[str, int]
    positions: str | None
    attentions: int | None = None
    joins: bool = True
    lower: Callable[[Program], Network]
    passes: tuple[NetworkPass, ...] = SIMPLIFY
    profiles: tuple[Profile, ...]
    kv_length_step: int | None = None
    config: Callable[[Network], LlmConfig | VisionConfig]
    tensors: TensorSource
    keep_weights: bool = False
    external_weights: bool = False
    cache_bytes: int = 0
    more: tuple[Job, ...] = ()
    beside: bool = False


@frozen
class Built:
    """Record of a component, its checkpoint tensors, and the compiling library.

    The library is None if the component is not compiled yet.
    """

    component: Component
    used: frozenset[str]
    library: str | None


def describe(job: Job) -> Network:
    """Capture, rewrite and lower a job's wrapper to its network.

    Engines in `more` are not included.

    Raises:
        ModelError: the model does something that no engine can.
    """
    return describe_all(evolve(job, more=()))[job.name][1]


def describe_all(job: Job) -> dict[str, tuple[Job, Network]]:
    """Jobs and networks of a job and its `more` engines, by component.

    Raises:
        ModelError: the model does something that no engine can.
    """
    with dumping_part(job.name), without_collection():
        longest = job.sizes["sequence"] if job.positions is not None else None
        program = export(job.wrapper, job.inputs, job.output_names, job.prefix, job.dtype, longest)
        dump("captured", lambda: program_text(program))
        rewrite(program, job.sizes, job.positions, job.joins, job.attentions)
        described: dict[str, tuple[Job, Network]] = {}
        for part in (job, *job.more):
            lowered = part.lower(program)
            dump(f"network of {part.name}", partial(network_text, lowered))
            network = run_passes(lowered, part.passes)
            check(network)
            described[part.name] = part, network
    return described


def build(
    job: Job,
    network: Network,
    target: Target,
    tensorrt: TensorRTConfig,
    capabilities: Sequence[str],
    directory: Path,
    root: Path,
    reuse: EngineCache,
) -> Built:
    """Write config.json, network and engine into `directory` (`root` or below it).

    The engine of a partitioned network consists of several files.

    Args:
        network: result of `describe` for the job.
        reuse: engine cache: an identical engine of an old tree is reused.

    Raises:
        DittoError: a step failed; do not use the directory afterwards.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if not job.beside:
        write_config(job.config(network), directory)
    save(network, directory / "network.json", directory / "network.safetensors")
    used = frozenset(name for constant in network.constants() for name in stored_names(constant.weight))
    if job.keep_weights and not job.beside:
        with stage("save weights", job.name):
            save_file({name: job.tensors.tensor(name).contiguous() for name in used}, directory / "weights.safetensors")
    parts = emitted(job, network, target)
    if target.has_own_session:
        save_schedule(parts.schedule, directory / "schedule.json")
    settings = (target, tensorrt, tuple(capabilities), job.dtype, job.profiles, job.external_weights)
    cache_key = reuse.cache_key(directory / "network.json", settings)
    paths = [directory / name for name in engine_files(job.name, len(parts.networks))]
    library = reuse.take(job.name, cache_key, paths)
    if library is None and target.cannot_compile is None:
        library = target.compile(parts.networks, job.profiles, job.tensors, tensorrt, capabilities, paths)
    component = Component(
        directory=directory.relative_to(root).as_posix(),
        engines=[path.name for path in paths] if library is not None else [],
        dtype=str(job.dtype).removeprefix("torch."),
        inputs={name: str(spec) for name, spec in network.inputs.items()},
        outputs={name: str(network.value(value).spec) for name, value in network.outputs.items()},
        shared=dict(network.shared),
        profiles=list(job.profiles),
        kv_length_step=job.kv_length_step,
        layers=layer_counts(network),
        weights=("../" if job.beside else "") + "weights.safetensors" if job.keep_weights else "checkpoint",
        external_weights=parts.external,
        cache_key=cache_key,
    )
    return Built(component, used, library)


def emitted(job: Job, network: Network, target: Target) -> Partition:
    """The partition of a job's network that TensorRT compiles."""
    if not target.has_own_session:
        return partition(network, PartitionMode.WHOLE)
    return partition(network, PartitionMode.SHARED_BLOCKS if job.external_weights else PartitionMode.EMBEDDED_BLOCKS)


def layer_counts(network: Network) -> dict[str, int]:
    """Number of layers by kind."""
    return dict(sorted(Counter(type(node.layer).__name__ for node in network.nodes).items()))
