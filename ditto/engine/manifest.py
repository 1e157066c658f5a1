"""`ditto.json`: what a tree is, what it was made from, and what belongs to it."""

from __future__ import annotations

import hashlib
import json
from itertools import islice
from pathlib import Path
from typing import Any

from attrs import Factory, frozen
from cattrs.errors import BaseValidationError

from ditto.configs import Limits
from ditto.engine.digest import FileRecord
from ditto.engine.paths import inside
from ditto.engine.profile import Profile, register_hooks
from ditto.engine.valid import faults
from ditto.errors import ConfigError, TreeError
from ditto.files import parse_json, read_whole
from ditto.outputs import MANIFEST as NAME
from ditto.strict import faults_of, strict_converter

FORMAT = 2
_UNSEALED = "0" * 64


@frozen(kw_only=True)
class Component:
    """An engine of the tree: `vision`, `llm`, or `decode`, which runs the language model's steps of one token.

    Args:
        folder: relative to the tree, `.` if the tree is this one engine.
        engines: the engine's file names, of a network in parts one for each; none while they are still to be compiled.
        dtype: the model's dtype in this engine, e.g. `float16`.
        inputs, outputs: specs by name, e.g. `float16[batch, 3, 336, 336]`.
        shared: outputs that use the memory of an input.
        profiles: the optimization profiles, in the engine's order.
        layers: how many of each kind.
        weights: where the constants come from, `checkpoint` or a safetensors file relative to `folder`.
        kv_length_step: the engine reads only as much of the KV cache as its input of cache slots names; the runtime
            rounds that length up to a multiple of this. None where the engine reads the whole cache.
        outside: weights that the engine takes as inputs: for each input, the constant of `network.json` to bind to it.
        made_from: what the engine's bytes depend on, by which a later build knows it again; empty if it cannot.
    """

    folder: str
    engines: list[str]
    dtype: str
    inputs: dict[str, str]
    outputs: dict[str, str]
    shared: dict[str, str]
    profiles: list[Profile]
    layers: dict[str, int]
    weights: str
    kv_length_step: int | None = None
    outside: dict[str, str] = Factory(dict)
    made_from: dict[str, str] = Factory(dict)


@frozen(kw_only=True)
class Checkpoint:
    """The checkpoint that a tree was made from, and its identity (see `CheckpointIndex`)."""

    folder: str
    identity: str


@frozen(kw_only=True)
class Tokens:
    """Token ids that running needs.

    Args:
        vocab_size: virtual ids start here.
        end: ids that end an answer.
        pad: filler behind shorter rows.
        image: the id that stands for one row of image features, None for a text model.
    """

    vocab_size: int
    end: list[int]
    pad: int
    image: int | None


@frozen(kw_only=True)
class TreeLimits:
    """How much the engines of a tree accept at once.

    Args:
        llm: of the language model, None without one.
        max_images: images per call of the vision engine, None without one.
    Raises:
        ConfigError: a number below 1.
    """

    llm: Limits | None = None
    max_images: int | None = None

    def __attrs_post_init__(self) -> None:
        if self.max_images is not None and self.max_images < 1:
            raise ConfigError(f"max_images is {self.max_images}", remedy="give a number of at least 1")


@frozen(kw_only=True)
class Manifest:
    """All of `ditto.json`.

    Args:
        ditto: Ditto's version.
        target: the target's name.
        library: the library that compiled the engines and its version, None while they are to be compiled.
        versions: of what took part.
        model: the id or folder that was asked for.
        model_type: Hugging Face's name of the family.
        settings: limits and choices, as asked for and as derived.
        limits: what the engines accept: what running, measuring and verifying go by.
        checkpoint: None for a model that came from memory.
        generation: the model's generation defaults under Hugging Face's names, but for its special tokens.
        unused: checkpoint tensors that no engine uses.
        stages: name, detail, seconds and peak resident bytes of each stage of the build.
        files: by path relative to the tree; the manifest itself aside.
    """

    format: int = FORMAT
    ditto: str
    target: str
    library: str | None
    versions: dict[str, str]
    model: str
    model_type: str
    settings: dict[str, Any]
    limits: TreeLimits
    checkpoint: Checkpoint | None
    tokens: Tokens | None
    generation: dict[str, Any]
    components: dict[str, Component]
    unused: list[str] = Factory(list)
    stages: list[dict[str, Any]] = Factory(list)
    files: dict[str, FileRecord] = Factory(dict)


_converter = strict_converter()
register_hooks(_converter)


def write_manifest(manifest: Manifest, root: Path) -> None:
    """Write `root`/ditto.json, sealed: its `digest` is that of its own text with zeros in the digest's place."""
    content = {"digest": _UNSEALED, **_converter.unstructure(manifest)}
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    (root / NAME).write_text(text.replace(_UNSEALED, _seal(text), 1), encoding="utf-8")


def _seal(unsealed: str) -> str:
    return hashlib.sha256(unsealed.encode()).hexdigest()


def read_manifest(root: Path) -> Manifest:
    """Read `root`/ditto.json.

    Raises:
        TreeError: it is missing, damaged, changed, or of another format; all faults are named.
    """
    path, remedy = root / NAME, "build the tree again"
    try:
        content = read_whole(inside(root, NAME))
        data = parse_json(content)
    except FileNotFoundError:
        raise TreeError(
            "there is no engine tree here: no ditto.json", where=str(root), remedy="run `ditto build` first"
        ) from None
    except OSError as error:
        raise TreeError(f"cannot read the manifest: {error.strerror}", where=str(path), remedy=remedy) from error
    except ValueError as error:
        raise TreeError(f"cannot read the manifest: {error}", where=str(path), remedy=remedy) from error
    found = data.get("format") if isinstance(data, dict) else None
    if found != FORMAT:
        raise TreeError(f"the tree has format {found}, not {FORMAT}", where=str(path), remedy=remedy)
    digest = str(data.pop("digest", ""))
    try:
        manifest = _converter.structure(data, Manifest)
    except BaseValidationError as error:
        raise TreeError(f"the manifest is damaged: {faults_of(error)}", where=str(path), remedy=remedy) from error
    if not digest or _seal(content.decode().replace(digest, _UNSEALED, 1)) != digest:
        raise TreeError("the manifest has changed since it was written", where=str(path), remedy=remedy)
    found_faults = list(islice(faults(manifest), 5))
    if found_faults:
        raise TreeError(f"the manifest is damaged: {'; '.join(found_faults)}", where=str(path), remedy=remedy)
    return manifest
