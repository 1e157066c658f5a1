"""Compilation of a tree's networks, on any machine with the target's library.

Needs `network.json`, the safetensors files of the checkpoint and the target's library, but not transformers.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from attrs import asdict, evolve
from cattrs.errors import BaseValidationError

from ditto.configs import TrtllmConfig
from ditto.engine import ENGINE_FILES, Component, EngineTree, engine_files, record_files, staged, write_manifest
from ditto.engine.manifest import NAME
from ditto.engine.paths import inside
from ditto.errors import MissingLibraryError, TreeError
from ditto.network.schedule import load_schedule
from ditto.passes.partition import Partition
from ditto.progress import recording
from ditto.runtime.weights import network_of, weights_of
from ditto.strict import faults_of, strict_converter
from ditto.targets import Target, target


def compile_tree(root: str | Path, checkpoint: str | Path | None = None) -> EngineTree:
    """Compile all engines of a tree; on failure, none.

    Args:
        root: the tree, or a directory of separate trees in `vision` and `llm`, compiled one after the other. Compiled
            engines are not changed.
        checkpoint: directory of the checkpoint on this machine; None for its location when the tree was built.
    Raises:
        TreeError: the tree is damaged, partly compiled, or from another version of Ditto; or the checkpoint differs.
        ConfigError: this machine cannot compile with the tree's settings.
        MissingLibraryError: the target's library is not installed.
        BuildError: the library rejects a network.
        All leave the tree unchanged.
    """
    root = Path(root)
    tree = EngineTree.open(root)
    trees = [tree]
    if not (root / NAME).is_file():
        directories = {inside(root, name) for name in ENGINE_FILES if (root / name / NAME).is_file()}
        trees = [EngineTree.open(directory) for directory in sorted(directories)]
    trees = [tree for tree in trees if not all(part.engines for part in tree.manifest.components.values())]
    for tree in trees:
        _check(tree)
    for tree in trees:
        _compile(tree, Path(checkpoint) if checkpoint is not None else None)
    return EngineTree.open(root)


def _check(tree: EngineTree) -> Target:
    """Target of the tree, after a check that this machine can compile for it."""
    compiled = [name for name, component in tree.manifest.components.items() if component.engines]
    if compiled:
        raise TreeError(
            f"only a part of the tree is compiled: {', '.join(compiled)}",
            where=str(tree.root),
            remedy="build the tree again: its engines are compiled together",
        )
    chosen = target(tree.manifest.target, _options(tree))
    for component in tree.manifest.components.values():
        chosen.check(component.spec.settings)
    if chosen.cannot_compile is not None:
        raise MissingLibraryError(
            f"engines for {chosen.name} cannot be compiled here: {chosen.cannot_compile}",
            remedy=f"take the tree to a machine that can, and say there: ditto compile {shlex.quote(str(tree.root))}",
        )
    return chosen


def _compile(tree: EngineTree, checkpoint: Path | None) -> None:
    chosen, manifest = _check(tree), tree.manifest
    if checkpoint is not None and manifest.checkpoint is not None:
        found = evolve(manifest.checkpoint, directory=str(checkpoint.resolve()))
        tree = EngineTree(tree.root, evolve(manifest, checkpoint=found))
    places = {"the checkpoint": Path(found.directory)} if (found := tree.manifest.checkpoint) is not None else {}
    with recording() as stages, staged(tree.root, places) as directory:
        for name in manifest.files:
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            os.link(inside(tree.root, name), directory / name)
        components: dict[str, Component] = {}
        libraries: set[str] = set()
        for name, component in manifest.components.items():
            parts = _parts(tree, name, chosen)
            engines = engine_files(component.spec.part, len(parts.networks))
            paths = [inside(directory, component.directory, engine) for engine in engines]
            library = chosen.compile(parts.networks, component.spec, weights_of(tree, name), paths)
            libraries.add(library)
            components[name] = evolve(component, engines=[engines])
        finished = evolve(
            manifest,
            library=", ".join(sorted(libraries)),
            components=components,
            stages=[*manifest.stages, *(asdict(record) for record in stages)],
            files=record_files(directory),
        )
        write_manifest(finished, directory)
        EngineTree.open(directory)


def _parts(tree: EngineTree, name: str, chosen: Target) -> Partition:
    """Partition of a component's network that matches its `schedule.json`."""
    component = tree.component(name)
    parts = chosen.partition(network_of(tree, name), component.spec)
    if not chosen.has_own_session:
        return parts
    schedule = load_schedule(tree.checked(name, "schedule.json"))
    if (parts.schedule, parts.external) == (schedule, component.external_weights):
        return parts
    raise TreeError(
        f"the network of {name} is divided otherwise than this Ditto does it",
        where=str(tree.root),
        remedy="build the tree with the Ditto that compiles it",
    )


def _options(tree: EngineTree) -> TrtllmConfig:
    """Options of the target `trtllm`; the defaults for a tree of another target."""
    try:
        return strict_converter().structure(tree.manifest.settings.get("trtllm", {}), TrtllmConfig)
    except BaseValidationError as error:
        raise TreeError(
            f"the manifest's settings are not those of this Ditto: {faults_of(error)}",
            where=str(tree.root / NAME),
            remedy="build the tree with the Ditto that compiles it",
        ) from error
