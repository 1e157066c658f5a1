"""The manifest `ditto.json`: a tree's engines, their origin, and all files."""

from __future__ import annotations

import hashlib
import json
from itertools import islice
from pathlib import Path
from typing import Any

from attrs import Factory, frozen
from cattrs.errors import BaseValidationError

from ditto.configs import Limits
from ditto.engine.assembly import Assembly
from ditto.engine.digest import FileRecord
from ditto.engine.paths import inside
from ditto.engine.profile import register_hooks
from ditto.engine.spec import EngineSpec
from ditto.engine.valid import faults
from ditto.errors import ConfigError, TreeError
from ditto.files import parse_json, read_whole
from ditto.outputs import MANIFEST as NAME
from ditto.strict import faults_of, strict_converter

FORMAT = 4
_UNSEALED = "0" * 64


@frozen(kw_only=True)
class Component:
    """An engine of the tree.

    Args:
        directory: directory relative to the tree, `.` for a tree of one part of a model.
        engines: the engine's file names, rank by rank and part by part of the partitioned network; empty before
            compilation.
        spec: decisions about the engine.
        inputs, outputs: dtype and shape by name, e.g. `float16[batch, 3, 336, 336]`.
        shared: for each output that uses the memory of an input, the name of that input.
        layers: number of layers of each kind.
        weights: source of the constants, `checkpoint` or a safetensors file relative to `directory`.
        external_weights: for each such engine input, the constant of `network.json` to bind to it.
        cache_key: cache key, by which a later build can reuse the engine; empty if it cannot be reused.
        assembly: how the embeddings of tiles become those of an image; None if they are those of an image.
    """

    directory: str
    engines: list[list[str]]
    spec: EngineSpec
    inputs: dict[str, str]
    outputs: dict[str, str]
    shared: dict[str, str]
    layers: dict[str, int]
    weights: str
    external_weights: dict[str, str] = Factory(dict)
    cache_key: dict[str, str] = Factory(dict)
    assembly: Assembly | None = None

    @property
    def engine_files(self) -> list[str]:
        """The engine's file names of all ranks."""
        return [name for rank in self.engines for name in rank]


@frozen(kw_only=True)
class Checkpoint:
    """The checkpoint of a tree: its directory and identity (see `CheckpointIndex`)."""

    directory: str
    identity: str


@frozen(kw_only=True)
class Tokens:
    """Token ids that the runtime needs.

    Args:
        vocab_size: size of the vocabulary, and the first virtual token id.
        end: token ids that end an answer.
        pad: token id that pads shorter rows at the end.
        image: placeholder id of one image token, None for a text model.
        uncounted: id that the model does not count when it makes positions from token ids, None if it counts all.
    """

    vocab_size: int
    end: list[int]
    pad: int
    image: int | None
    uncounted: int | None = None


@frozen(kw_only=True)
class DecoderSizes:
    """Sizes of a language model's decoder, under Hugging Face's names.

    Args:
        vocab_size: number of rows of the token embedding.
        num_attention_heads, num_key_value_heads: query heads, and key and value heads, of each layer.
        head_size: width of each head.
        max_position_embeddings: positions that the model supports.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_size: int
    max_position_embeddings: int


@frozen(kw_only=True)
class TreeLimits:
    """Size limits of the engines of a tree.

    Args:
        llm: limits of the language model, None without one.
        max_images: images per call of the vision engine, None without one.
    Raises:
        ConfigError: `max_images` is below 1.
    """

    llm: Limits | None = None
    max_images: int | None = None

    def __attrs_post_init__(self) -> None:
        if self.max_images is not None and self.max_images < 1:
            raise ConfigError(f"max_images is {self.max_images}", remedy="give a number of at least 1")


@frozen(kw_only=True)
class Manifest:
    """The content of `ditto.json`.

    Args:
        ditto: Ditto's version.
        target: the target's name.
        library: name and version of the library that compiled the engines, None before compilation.
        versions: versions of the software that took part in the build, by name.
        model: the requested Hugging Face id or directory.
        model_type: Hugging Face's name of the model family.
        settings: limits and build settings, both requested and derived.
        limits: size limits of the engines, used by run, bench and verify.
        decoder: sizes of the language model, None without one.
        checkpoint: None for a model that was built from memory.
        generation: the model's generation defaults under Hugging Face's names, without its special tokens.
        unused: checkpoint tensors that no engine uses.
        stages: name, detail, seconds and peak resident bytes of each stage of the build.
        files: size and digest by path relative to the tree, except for the manifest itself.
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
    decoder: DecoderSizes | None
    checkpoint: Checkpoint | None
    tokens: Tokens | None
    generation: dict[str, Any]
    components: dict[str, Component]
    unused: list[str] = Factory(list)
    stages: list[dict[str, Any]] = Factory(list)
    files: dict[str, FileRecord] = Factory(dict)


_converter = strict_converter()
register_hooks(_converter)


def spec_digest(spec: EngineSpec) -> str:
    """Digest of a spec as the manifest states it."""
    return hashlib.sha256(json.dumps(_converter.unstructure(spec)).encode()).hexdigest()


def write_manifest(manifest: Manifest, root: Path) -> None:
    """Write `root`/ditto.json with a digest of its own text.

    The digest is computed with zeros in its place.
    """
    content = {"digest": _UNSEALED, **_converter.unstructure(manifest)}
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    (root / NAME).write_text(text.replace(_UNSEALED, _seal(text), 1), encoding="utf-8")


def _seal(unsealed: str) -> str:
    return hashlib.sha256(unsealed.encode()).hexdigest()


def read_manifest(root: Path) -> Manifest:
    """Read `root`/ditto.json.

    Raises:
        TreeError: the manifest is missing, damaged, changed, or of another format; the message lists the faults.
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
