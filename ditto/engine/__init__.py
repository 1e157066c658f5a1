"""Engine trees on disk: files, manifest, and safe replacement."""

from ditto.engine.assembly import NEWLINE, NEWLINE_FILE, Assembly
from ditto.engine.manifest import (
    Checkpoint,
    Component,
    DecoderSizes,
    Manifest,
    Tokens,
    TreeLimits,
    spec_digest,
    write_manifest,
)
from ditto.engine.profile import IMAGE_TOKENS, PROMPT_LENGTH_STEP, Phase, Profile, batch_dimension
from ditto.engine.spec import EngineSpec, PassSpec
from ditto.engine.staging import staged
from ditto.engine.tree import ENGINE_FILES, EngineTree, engine_files, record_files, version_of, versions

__all__ = [
    "ENGINE_FILES",
    "IMAGE_TOKENS",
    "NEWLINE",
    "NEWLINE_FILE",
    "PROMPT_LENGTH_STEP",
    "Assembly",
    "Checkpoint",
    "Component",
    "DecoderSizes",
    "EngineSpec",
    "EngineTree",
    "Manifest",
    "PassSpec",
    "Phase",
    "Profile",
    "Tokens",
    "TreeLimits",
    "batch_dimension",
    "engine_files",
    "record_files",
    "spec_digest",
    "staged",
    "version_of",
    "versions",
    "write_manifest",
]
