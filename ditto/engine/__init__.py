"""Engine trees on disk."""

from ditto.engine.lock import held_locks
from ditto.engine.manifest import Checkpoint, Component, Manifest, Tokens, write_manifest
from ditto.engine.staging import staged
from ditto.engine.tree import ENGINE_FILES, EngineTree, record_files, version_of, versions

__all__ = [
    "ENGINE_FILES",
    "Checkpoint",
    "Component",
    "EngineTree",
    "Manifest",
    "Tokens",
    "held_locks",
    "record_files",
    "staged",
    "version_of",
    "versions",
    "write_manifest",
]
