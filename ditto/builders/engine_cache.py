"""Engine cache: reuses engines of an old tree whose cache keys are unchanged."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from attrs import frozen
from loguru import logger

import ditto
from ditto.bindings import Library, is_installed, load, plugins_version
from ditto.engine import EngineTree, version_of
from ditto.errors import TreeError
from ditto.progress import stage


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

    def cache_key(self, network: Path, settings: object) -> dict[str, str]:
        """Cache key of an engine for the manifest: everything that its bytes depend on.

        Args:
            network: `network.json` as written.
            settings: other settings of the build; their `repr` must be complete.
        """
        if self.checkpoint is None:
            return {}
        return {
            "checkpoint": self.checkpoint,
            "network": hashlib.sha256(network.read_bytes()).hexdigest(),
            "settings": hashlib.sha256(repr(settings).encode()).hexdigest(),
            "ditto": f"{ditto.__version__} {_source_digest()}",
            **{package: version_of(package) for package in ("torch", "transformers")},
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
                old = [self.old.checked(name, file) for file in component.engines]
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


@cache
def _source_digest() -> str:
    """Digest of Ditto's own code.

    A version number does not change with every edit.
    """
    digest = hashlib.sha256()
    root = Path(ditto.__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _library_versions() -> dict[str, str]:
    libraries: tuple[Library, ...] = ("tensorrt", "tensorrt_rtx")
    found = {library: load(library).version for library in libraries if is_installed(library)}
    return {**found, "plugins": plugins_version() or "none"}
