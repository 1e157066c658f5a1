"""An engine tree on disk.

    OUT/ditto.json                                       the manifest
    OUT/vision/{config.json,model.engine}                vision tower and projector
    OUT/vision/image_newlines.safetensors                newline embedding, where images are assembled from tiles
    OUT/llm/{config.json,rank0.engine}                   language model
    OUT/llm/llm-decode/rank0.engine                      its decode engine, if prefill and decode have separate ones
    OUT/*/{network.json,network.safetensors}             the network of each engine
    OUT/processor/                                       tokenizer and image processor

A tree of one part of a model has its files at the top level. Two such trees in `OUT/vision` and `OUT/llm`, built one at
a time, open as one tree.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen
from typing_extensions import override

from ditto.configs import Limits
from ditto.engine.config import read_config
from ditto.engine.digest import PIECE_BYTES, FileRecord, file_record
from ditto.engine.manifest import NAME, Component, DecoderSizes, Manifest, read_manifest
from ditto.engine.paths import file_bytes, inside, listed
from ditto.errors import TreeError

if TYPE_CHECKING:
    from ditto.text.model import Model

ENGINE_FILES = {"vision": "model.engine", "llm": "rank0.engine"}
"""Engine file name by part of a model."""


def engine_files(part: str, count: int) -> list[str]:
    """Engine file names of a component's first rank: `rank0.engine`, `rank0.part1.engine`, ...

    Args:
        part: the part of the model that it runs.
        count: number of networks in its partition, one file each.
    """
    stem, suffix = ENGINE_FILES[part].split(".")
    return [f"{stem}.part{number}.{suffix}" if number else f"{stem}.{suffix}" for number in range(count)]


@frozen
class EngineTree:
    """An engine tree: its directory and its manifest."""

    root: Path
    manifest: Manifest

    @override
    def __repr__(self) -> str:
        engines = ", ".join(self.manifest.components)
        return f"<EngineTree {str(self.root)!r}: {self.manifest.model_type} for {self.manifest.target}, {engines}>"

    @staticmethod
    def open(root: str | Path) -> EngineTree:
        """Open a tree and check its files.

        Every file must exist with its size. All but the large files are hashed here; `checked` hashes those before use.

        Raises:
            TreeError: there is no tree, it is damaged, or its engines were built separately and do not match.
        """
        root = Path(root)
        engines = _separate_engines(root)
        if engines:
            return _joined(root, {name: EngineTree.open(directory) for name, directory in engines.items()})
        manifest = read_manifest(root)
        tree = EngineTree(root, manifest)
        for name, record in manifest.files.items():
            if file_bytes(root, name) != record.bytes:
                raise TreeError(
                    f"{name} is not {record.bytes} bytes long", where=str(root), remedy="build the tree again"
                )
        for component in manifest.components.values():
            for name in (*(["config.json"] if component.spec.is_first else []), *component.engine_files):
                record = manifest.files.get(listed(component.directory, name))
                if record is None or not record.bytes:
                    raise TreeError(
                        f"{component.directory}/{name} is empty", where=str(root), remedy="build the tree again"
                    )
        tree.check(name for name, record in manifest.files.items() if record.bytes <= PIECE_BYTES)
        _ = tree.processor_directory  # it may be a link that leads out
        return tree

    def load(self, **options: Any) -> Model:
        """Load the tree, as `ditto.load` does with the same options.

        Raises:
            DittoError: as `ditto.load`.
        """
        import ditto  # the public interface: this room knows none of those that load trees

        return ditto.load(self, **options)

    def component(self, name: str) -> Component:
        """A component's record in the manifest.

        Raises:
            TreeError: the tree has no component of that name.
        """
        if name not in self.manifest.components:
            have = ", ".join(self.manifest.components)
            raise TreeError(f"the tree has no {name} engine, only {have}", where=str(self.root))
        return self.manifest.components[name]

    @property
    def limits(self) -> Limits:
        """Size limits of the language model.

        Raises:
            TreeError: the tree has no language model.
        """
        self.component("llm")
        assert self.manifest.limits.llm is not None
        return self.manifest.limits.llm

    @property
    def decoder(self) -> DecoderSizes:
        """Sizes of the language model.

        Raises:
            TreeError: the tree has no language model.
        """
        self.component("llm")
        assert self.manifest.decoder is not None
        return self.manifest.decoder

    @property
    def max_images(self) -> int:
        """Maximum number of images per call of the vision engine.

        Raises:
            TreeError: the tree has no vision engine.
        """
        self.component("vision")
        assert self.manifest.limits.max_images is not None
        return self.manifest.limits.max_images

    def directory(self, name: str) -> Path:
        """A component's directory."""
        return inside(self.root, self.component(name).directory)

    def config(self, name: str) -> dict[str, Any]:
        """The content of a component's config.json, which only TensorRT-LLM and its reference session use."""
        return read_config(self.directory(name))

    @property
    def processor_directory(self) -> Path | None:
        """Directory of the tokenizer and image processor, None if the tree has none."""
        candidates = [inside(self.root, "processor")]
        candidates += [inside(self.root, part.directory, "processor") for part in self.manifest.components.values()]
        return next((directory for directory in candidates if directory.is_dir()), None)

    def check(self, names: Iterable[str] | None = None) -> None:
        """Check sizes and digests of files of the tree.

        Args:
            names: paths relative to the tree; None for all files.

        Raises:
            TreeError: a file has changed since it was built.
        """
        for name in self.manifest.files if names is None else names:
            try:
                found = file_record(inside(self.root, name))
            except OSError as error:
                raise TreeError(f"cannot read {name}: {error.strerror}", where=str(self.root)) from error
            if found != self.manifest.files.get(name):
                raise TreeError(
                    f"{name} has changed since it was built", where=str(self.root), remedy="build the tree again"
                )

    def listed(self, component: str, name: str) -> str:
        """Path of a component's file relative to the tree, as in the manifest."""
        return listed(self.component(component).directory, name)

    def checked(self, component: str, name: str) -> Path:
        """Path of a component's file for use.

        A file that `open` did not hash is hashed now.

        Raises:
            TreeError: the file has changed since it was built.
        """
        path = self.listed(component, name)
        record = self.manifest.files.get(path)
        if record is None or record.bytes > PIECE_BYTES:
            self.check([path])
        return inside(self.root, path)


def _separate_engines(root: Path) -> dict[str, Path]:
    """Directories of separately built engines, by component.

    Empty if `root` has a manifest.

    Raises:
        TreeError: `root` is not a readable directory.
    """
    try:
        if not stat.S_ISDIR(os.stat(root).st_mode):
            raise TreeError("this is not a directory", where=str(root), remedy="give the directory that was built")
        names = {path.name for path in root.iterdir()}
    except (FileNotFoundError, NotADirectoryError):
        raise TreeError(
            "there is no such directory", where=str(root), remedy="give the directory that was built"
        ) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise TreeError(f"cannot read the directory: {reason}", where=str(root)) from error
    if NAME in names:
        return {}
    found = {name: inside(root, name) for name in ENGINE_FILES if name in names}
    return {name: directory for name, directory in found.items() if os.path.lexists(directory / NAME)}


# Properties that the engines of one tree share, by the text of the error if they differ.
_SHARED: dict[str, Callable[[Manifest], object]] = {
    "for different targets": lambda manifest: manifest.target,
    "by different libraries": lambda manifest: manifest.library,
    "from different checkpoints": lambda manifest: manifest.checkpoint and manifest.checkpoint.identity[:12],
}


def _joined(root: Path, trees: dict[str, EngineTree]) -> EngineTree:
    """Join separately built engines into one tree.

    Raises:
        TreeError: the engines have different targets, libraries or checkpoints.
    """
    first = trees.get("llm") or next(iter(trees.values()))
    for name, tree in trees.items():
        for difference, of in _SHARED.items():
            mine, others = of(tree.manifest), of(first.manifest)
            if mine != others and mine is not None and others is not None:
                raise TreeError(
                    f"the engines of {name} and llm were built {difference}: {mine} and {others}",
                    where=str(root),
                    remedy="build both alike, or each into a directory of its own",
                )
    components: dict[str, Component] = {}
    files: dict[str, FileRecord] = {}
    for name, tree in trees.items():
        for part, component in tree.manifest.components.items():
            components[part] = evolve(component, directory=listed(name, component.directory))
        files.update({f"{name}/{path}": record for path, record in tree.manifest.files.items()})
    vision = trees.get("vision")
    model_type = vision.manifest.model_type if vision is not None else first.manifest.model_type
    limits = first.manifest.limits if vision is None else evolve(vision.manifest.limits, llm=first.manifest.limits.llm)
    manifest = evolve(first.manifest, components=components, files=files, model_type=model_type, limits=limits)
    return EngineTree(root, manifest)


def record_files(root: Path) -> dict[str, FileRecord]:
    """Size and digest of every file under a tree's root, except for the manifest."""
    paths = sorted(path for path in root.rglob("*") if path.is_file() and path.name != NAME)
    return {path.relative_to(root).as_posix(): file_record(path) for path in paths}


def version_of(package: str) -> str:
    """Version of an installed package, `unknown` if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def versions() -> dict[str, str]:
    """Versions of Python and of packages used in a build, except for TensorRT."""
    packages = ("torch", "transformers", "safetensors")
    return {"python": platform.python_version(), **{name: version_of(name) for name in packages}}
