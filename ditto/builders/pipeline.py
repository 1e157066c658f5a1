"""The story of a build: describe the engines, announce the plan, write and compile each engine, write the manifest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from attrs import asdict, frozen
from safetensors.torch import save_file

import ditto
from ditto.builders.describe import Described, PartBuilder, common_target, describe, layer_counts
from ditto.builders.engine_cache import EngineCache
from ditto.builders.generation import answer_settings
from ditto.builders.plan import announce, plan_of
from ditto.engine import (
    Component,
    EngineTree,
    Manifest,
    TreeLimits,
    engine_files,
    record_files,
    staged,
    versions,
    write_manifest,
)
from ditto.engine.config import write_config
from ditto.network import resolve, save
from ditto.network.schedule import save_schedule
from ditto.network.weight import Literals, stored_names
from ditto.progress import recording, stage
from ditto.targets import ModelPart, Target, VisionPart


@frozen
class Built:
    """Record of an engine, its checkpoint tensors, and the compiling library.

    The library is None if the engine is not compiled yet.
    """

    component: Component
    used: frozenset[str]
    library: str | None


def build(builders: Mapping[str, PartBuilder], out: str | Path, *, force: bool = False) -> EngineTree:
    """Build the engines of a model into one tree.

    Args:
        builders: builders by the directory of their engines. The files of a single builder are at the top level.
        force: rebuild engines even if the existing tree has identical ones.
    Raises:
        DittoError: the build failed; `out` is unchanged.
    """
    first, target = next(iter(builders.values())), common_target(builders)
    source = first.source
    with recording() as stages, staged(Path(out), source.places) as root:
        described = {
            name: describe(builder.part(target), target, builder.build_settings) for name, builder in builders.items()
        }
        engines = [engine for part in described.values() for engine in part]
        announce(plan_of(source, first.model_type, target, first.build_settings, engines), root)
        cache = EngineCache.from_tree(Path(out), source.state, force)
        built = [
            _build_engine(engine, target, root if len(builders) == 1 else root / name, root, cache)
            for name, part in described.items()
            for engine in part
        ]
        source.copy_processor(root / "processor")
        tokens = next((found for builder in builders.values() if (found := builder.tokens()) is not None), None)
        libraries = {engine.library for engine in built if engine.library is not None}
        manifest = Manifest(
            ditto=ditto.__version__,
            target=target.name,
            library=", ".join(sorted(libraries)) or None,
            versions=versions(),
            model=source.name,
            model_type=first.model_type,
            settings={
                **{part[0].part.name: builders[name].settings() for name, part in described.items()},
                **target.settings(),
            },
            limits=_joined_limits(builder.tree_limits(target) for builder in builders.values()),
            decoder=next((sizes for engine in engines if (sizes := engine.part.decoder_sizes) is not None), None),
            checkpoint=source.checkpoint,
            tokens=tokens,
            generation={} if tokens is None else answer_settings(source.generation_config),
            components={engine.component.spec.name: engine.component for engine in built},
            unused=source.unused(frozenset(name for engine in built for name in engine.used)),
            stages=[asdict(record) for record in stages],
            files=record_files(root),
        )
        write_manifest(manifest, root)
        EngineTree.open(root)
    return EngineTree.open(out)


def _joined_limits(limits: Iterable[TreeLimits]) -> TreeLimits:
    """Limits of all engines of a tree."""
    joined = TreeLimits()
    for each in limits:
        joined = TreeLimits(llm=each.llm or joined.llm, max_images=each.max_images or joined.max_images)
    return joined


def _build_engine(engine: Described, target: Target, directory: Path, root: Path, cache: EngineCache) -> Built:
    """Write config.json, network and engine into a directory, `root` or below it.

    An engine after the first one of its part has a directory of its own in there.

    Raises:
        DittoError: a step failed; do not use the directory afterwards.
    """
    part, spec, network = engine.part, engine.spec, engine.network
    directory = directory if spec.is_first else directory / spec.name
    directory.mkdir(parents=True, exist_ok=True)
    if spec.is_first:
        write_config(target.config(part, network), directory)
    save(network, directory / "network.json", directory / "network.safetensors")
    used = frozenset(name for constant in network.constants() for name in stored_names(constant.weight))
    used |= _write_files(part, directory) if spec.is_first else frozenset()
    if part.keeps_weights and spec.is_first:
        with stage("save weights", spec.name):
            tensors = {name: part.tensors.tensor(name).contiguous() for name in used}
            save_file(tensors, directory / "weights.safetensors")
    partition = target.partition(network, spec)
    if target.has_own_session:
        save_schedule(partition.schedule, directory / "schedule.json")
    cache_key = cache.cache_key(directory / "network.json", spec, target)
    paths = [directory / name for name in engine_files(spec.part, len(partition.networks))]
    library = cache.take(spec.name, cache_key, paths)
    if library is None and target.cannot_compile is None:
        library = target.compile(partition.networks, spec, part.tensors, paths)
    component = Component(
        directory=directory.relative_to(root).as_posix(),
        engines=[[path.name for path in paths]] if library is not None else [],
        spec=spec,
        inputs={name: str(spec) for name, spec in network.inputs.items()},
        outputs={name: str(network.value(value).spec) for name, value in network.outputs.items()},
        shared=dict(network.shared),
        layers=layer_counts(network),
        weights=("" if spec.is_first else "../") + "weights.safetensors" if part.keeps_weights else "checkpoint",
        external_weights=partition.external,
        cache_key=cache_key,
        assembly=part.assembly if isinstance(part, VisionPart) else None,
    )
    return Built(component, used, library)


def _write_files(part: ModelPart, directory: Path) -> frozenset[str]:
    """Write the weights that a session needs in addition to the engine; returns the names of their tensors."""
    for name, weights in part.files.items():
        tensors = {key: resolve(weight, part.tensors, Literals()) for key, weight in weights.items()}
        save_file(tensors, directory / name)
    return frozenset(
        name for weights in part.files.values() for weight in weights.values() for name in stored_names(weight)
    )
