"""The story of a build: capture, rewrite, lower, write down, compile."""

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
from ditto.builders.reuse import Reuse
from ditto.capture import export
from ditto.configs import TensorRTConfig
from ditto.dumps import dump, dumping_part
from ditto.engine import Component, Profile, engine_files
from ditto.engine.config import LlmConfig, VisionConfig, write_config
from ditto.garbage import without_collection
from ditto.network import Network, check, network_text, save
from ditto.network.calls import save_calls
from ditto.network.weight import TensorSource, stored_names
from ditto.passes import SIMPLIFY, NetworkPass, run_passes
from ditto.passes.partition import Partition, PartitionMode, partition
from ditto.program import Program, program_text
from ditto.progress import stage
from ditto.rewrite import rewrite
from ditto.targets import Target


@frozen(kw_only=True)
class Job:
    """Everything that is decided about an engine before work begins.

    Args:
        name: of the component.
        wrapper: what is captured; `prefix` is what it adds in front of the user's module paths.
        inputs, output_names: of the wrapper.
        dtype: of floating parameters.
        sizes: of named dimensions, the largest that occur over an engine's life.
        positions: the input that holds token positions, None for a vision tower.
        attentions: layers of a decoder that attend, each with a KV cache; None for a vision tower.
        joins: linear layers that read the same tensor become one.
        lower: from the rewritten program to the network.
        passes: over the network, in order.
        profiles: of the engine.
        kv_length_step: as the manifest has it.
        config: what goes into config.json, given the network.
        tensors: who has the checkpoint's numbers.
        keep_weights: also write the weights beside the engine: for a model that is on no disk.
        external_weights: the engine takes its large weights as inputs.
        cache_bytes: of the KV cache at the chosen limits.
        more: engines of the same program, made beside this one over the same weights.
        beside: this is such an engine; config.json and kept weights are in the folder above its own.
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
    """A component's record, the checkpoint tensors that it uses, and who compiled it: None if nobody has yet."""

    component: Component
    used: frozenset[str]
    library: str | None


def describe(job: Job) -> Network:
    """From the wrapper to the network, without the engines beside it.

    Raises:
        ModelError: the model does something that no engine can.
    """
    return describe_all(evolve(job, more=()))[job.name][1]


def describe_all(job: Job) -> dict[str, tuple[Job, Network]]:
    """From the wrapper to the networks, by component, each with its job.

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
    folder: Path,
    root: Path,
    reuse: Reuse,
) -> Built:
    """Write config.json, network and engine into `folder`, which is `root` or below it. The engine of a network in
    parts is several files.

    Args:
        network: what `describe` made of the job.
        reuse: an engine of the same description is taken over from an old tree.

    Raises:
        DittoError: any step failed; the folder is not to be used then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not job.beside:
        write_config(job.config(network), folder)
    save(network, folder / "network.json", folder / "network.safetensors")
    used = frozenset(name for constant in network.constants() for name in stored_names(constant.weight))
    if job.keep_weights and not job.beside:
        with stage("save weights", job.name):
            save_file({name: job.tensors.tensor(name).contiguous() for name in used}, folder / "weights.safetensors")
    parts = emitted(job, network, target)
    if target.has_own_session:
        save_calls(parts.calls, folder / "calls.json")
    settings = (target, tensorrt, tuple(capabilities), job.dtype, job.profiles, job.external_weights)
    made_from = reuse.made_from(folder / "network.json", settings)
    paths = [folder / name for name in engine_files(job.name, len(parts.networks))]
    library = reuse.take(job.name, made_from, paths)
    if library is None and target.cannot_compile is None:
        library = target.compile(parts.networks, job.profiles, job.tensors, tensorrt, capabilities, paths)
    component = Component(
        folder=folder.relative_to(root).as_posix(),
        engines=[path.name for path in paths] if library is not None else [],
        dtype=str(job.dtype).removeprefix("torch."),
        inputs={name: str(spec) for name, spec in network.inputs.items()},
        outputs={name: str(network.value(value).spec) for name, value in network.outputs.items()},
        shared=dict(network.shared),
        profiles=list(job.profiles),
        kv_length_step=job.kv_length_step,
        layers=layer_counts(network),
        weights=("../" if job.beside else "") + "weights.safetensors" if job.keep_weights else "checkpoint",
        outside=parts.external,
        made_from=made_from,
    )
    return Built(component, used, library)


def emitted(job: Job, network: Network, target: Target) -> Partition:
    """What TensorRT is given of a job's network."""
    if not target.has_own_session:
        return partition(network, PartitionMode.WHOLE)
    return partition(network, PartitionMode.SHARED_BLOCKS if job.external_weights else PartitionMode.EMBEDDED_BLOCKS)


def layer_counts(network: Network) -> dict[str, int]:
    """How many layers of each kind, by name."""
    return dict(sorted(Counter(type(node.layer).__name__ for node in network.nodes).items()))
