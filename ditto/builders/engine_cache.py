"""Engine cache: reuses engines of an old tree whose cache keys are unchanged."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen
from loguru import logger

from ditto.bindings import Library, is_installed, load, plugins_version
from ditto.builders.code_digest import code_digest
from ditto.engine import EngineTree, spec_digest, version_of
from ditto.engine.spec import EngineSpec
from ditto.errors import TreeError
from ditto.progress import stage
from ditto.targets import Target


@frozen
class EngineCache:
    """Engine cache of a build.

    Args:
        old: the tree that is being replaced; None to build everything.
        checkpoint: fingerprint of the checkpoint (`ModelSource.state`); None for a model in memory, whose engines are
            always built.
    """

    old: EngineTree | None
    checkpoint: str | None

    @staticmethod
    def from_tree(out: Path, checkpoint: str | None, force: bool) -> EngineCache:
        """Engine cache of the tree at `out`.

        Empty if there is no tree, it is damaged, or `force` is set.
        """
        if force:
            return EngineCache(None, checkpoint)
        try:
            return EngineCache(EngineTree.open(out), checkpoint)
        except TreeError:
            return EngineCache(None, checkpoint)

    def cache_key(self, network: Path, spec: EngineSpec, target: Target) -> dict[str, str]:
        """Cache key of an engine for the manifest: everything that its bytes depend on.

        Args:
            network: `network.json` as written; it names its literals by their digests.
        """
        if self.checkpoint is None:
            return {}
        return {
            "checkpoint": self.checkpoint,
            "network": hashlib.sha256(network.read_bytes()).hexdigest(),
            "spec": spec_digest(spec),
            "target": hashlib.sha256(repr(target).encode()).hexdigest(),
            "code": code_digest(target),
            "torch": version_of("torch"),  # computes joined and cast weights
            **_library_versions(),
        }

    def take(self, name: str, cache_key: dict[str, str], paths: Sequence[Path]) -> str | None:
        """Check a component's old engine and place its files at `paths`.

        Returns the library that compiled it; None if the engine cannot be reused.
        """
        if self.old is None or self.old.manifest.library is None or name not in self.old.manifest.components:
            return None
        component = self.old.component(name)
        if not component.engines:
            return None
        known = component.cache_key
        changed = [key for key in {**known, **cache_key} if known.get(key) != cache_key.get(key)]
        if changed or not cache_key:
            reason = f"{', '.join(changed)} changed" if cache_key else "a model in memory has no identity"
            logger.info("the {} engine is built anew: {}", name, reason)
            return None
        try:
            with stage("reuse", name):
                old = [self.old.checked(name, file) for file in component.engine_files]
                for source, path in zip(old, paths, strict=True):
                    _link(source, path)
        except TreeError as error:
            logger.info("the {} engine is built anew: {}", name, error.cause)
            return None
        return self.old.manifest.library


def _link(old: Path, new: Path) -> None:
    """Hard link a file into the new tree, or copy it if the file system has no links.

    Neither tree writes to it.
    """
    try:
        os.link(old, new)
    except OSError:
        shutil.copyfile(old, new)


def _library_versions() -> dict[str, str]:
    libraries: tuple[Library, ...] = ("tensorrt", "tensorrt_rtx")
    found = {library: load(library).version for library in libraries if is_installed(library)}
    return {**found, "plugins": plugins_version() or "none"}
