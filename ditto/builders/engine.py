"""Base class of all builders: frozen settings, `with_*` copies, and `build`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import torch
from attrs import asdict, evolve, frozen
from typing_extensions import Self

import ditto
from ditto.builders.engine_cache import EngineCache
from ditto.builders.generation import answer_settings
from ditto.builders.pipeline import Built, Job, build, describe_all
from ditto.builders.plan import announce, plan_of
from ditto.builders.source import DTYPES, ModelSource
from ditto.configs import AUTO, TensorRTConfig, TrtllmConfig
from ditto.engine import (
    EngineTree,
    Manifest,
    Tokens,
    TreeLimits,
    record_files,
    staged,
    versions,
    write_manifest,
)
from ditto.errors import ConfigError
from ditto.network import Network
from ditto.progress import StageRecord, recording
from ditto.targets import Target, target

Auto = Literal["auto"]
_SHORT_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
_MOST = 2**31 - 1  # largest size in TensorRT
Described = dict[str, tuple[Job, Network]]
WeightPlacement = Literal["embedded", "external"]


def positive(name: str, value: Any) -> int:
    """Check that `value` is a number of at least 1 and within the limit of engines.

    Returns it.

    Raises:
        ConfigError: it is not.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{name} is {value!r}", remedy="give a number of at least 1")
    if value > _MOST:
        raise ConfigError(f"{name} is {value}", remedy=f"give a number of at most {_MOST}")
    return value


@frozen(kw_only=True, slots=False)
class EngineBuilder(ABC):
    """Settings of one engine. Nothing is loaded or built before `build`.

    Args:
        source: source of the model.
        max_batch_size: maximum number of items per call.
        dtype: dtype in which the engine computes; `auto` for the model's own.
        target: a name in `ditto.configs.TARGETS`, or `auto` for the first whose library is installed.
        compute_capabilities: GPUs to build for, e.g. `8.9`; empty for a portable engine (TensorRT-RTX) or for the
            installed GPU (TensorRT).
        weights: `embedded` in the engine, or `external`: large ones are engine inputs, which the session binds to the
            checkpoint's tensors.
        tensorrt: TensorRT's own settings.
        trtllm: options of TensorRT-LLM engines, for the target `trtllm`.
    """

    name: ClassVar[str]

    source: ModelSource
    max_batch_size: int = 1
    dtype: torch.dtype | Auto = "auto"
    target: str = AUTO
    compute_capabilities: tuple[str, ...] = ()
    weights: WeightPlacement = "embedded"
    tensorrt: TensorRTConfig = TensorRTConfig()
    trtllm: TrtllmConfig = TrtllmConfig()

    def with_source(self, source: ModelSource) -> Self:
        """Use `source` as the source of the model."""
        return evolve(self, source=source)

    def with_batch(self, maximum: int) -> Self:
        """Accept 1 to `maximum` items per call; the engine is optimized for half of it."""
        return evolve(self, max_batch_size=positive("the batch limit", maximum))

    def with_dtype(self, dtype: torch.dtype | str) -> Self:
        """Compute in `dtype`: float32, float16, bfloat16, or `auto` for the model's own."""
        return evolve(self, dtype=parse_dtype(dtype))

    def with_target(self, name: str) -> Self:
        """Build for a target: `trtllm`, `tensorrt`, `tensorrt-rtx`, or `auto`."""
        return evolve(self, target=name)

    def with_compute_capabilities(self, *capabilities: str) -> Self:
        """Build for these GPUs, e.g. `8.9`; without any, build a portable engine."""
        return evolve(self, compute_capabilities=tuple(str(capability) for capability in capabilities))

    def with_weights(self, place: str) -> Self:
        """Embed the weights (`embedded`) or pass large ones as inputs (`external`)."""
        return evolve(self, weights=parse_weights(place))

    def with_tensorrt(self, config: TensorRTConfig) -> Self:
        """Use `config` for TensorRT's own settings."""
        return evolve(self, tensorrt=config)

    def with_trtllm(self, config: TrtllmConfig) -> Self:
        """Use `config` for TensorRT-LLM's version and options (target `trtllm`)."""
        return evolve(self, trtllm=config)

    def resolved_target(self) -> Target:
        """The target, after a check of its library and settings.

        Raises:
            ConfigError, MissingLibraryError: building for it is not possible.
        """
        chosen = target(self.target, self.trtllm)
        chosen.check(self.tensorrt, self.compute_capabilities)
        if self.weights == "external" and not chosen.has_own_session:
            raise ConfigError(
                f"target {chosen.name} embeds the weights in its engines",
                remedy="omit --weights, or build for a plugin-free target",
            )
        return chosen

    def resolved_dtype(self, target: Target) -> torch.dtype:
        """The dtype in which the engine computes.

        Raises:
            ConfigError: engines do not support the model's own dtype.
        """
        explicit = target.explicit_dtype(self.tensorrt)
        if explicit is not None:
            return explicit
        dtype = self.source.dtype if self.dtype == "auto" else self.dtype
        if dtype not in DTYPES.values():
            raise ConfigError(f"the model's dtype {dtype} is not supported", remedy=f"choose from {', '.join(DTYPES)}")
        return dtype

    @abstractmethod
    def job(self, target: Target) -> Job:
        """The job: all decisions about the engine.

        Raises:
            CheckpointError, ConfigError: the model or the settings do not fit.
        """

    @property
    @abstractmethod
    def model_type(self) -> str:
        """Hugging Face's name of the model's family (`model_type`)."""

    def settings(self) -> dict[str, Any]:
        """Settings for the manifest, derived ones included."""
        return {
            "compute_capabilities": list(self.compute_capabilities),
            "weights": self.weights,
            "tensorrt": asdict(self.tensorrt),
        }

    @abstractmethod
    def tree_limits(self, target: Target) -> TreeLimits:
        """Limits of the engine for a target, as the tree records them.

        Raises:
            ConfigError: the limits contradict each other or the model.
        """

    def tokens(self) -> Tokens | None:
        """Token ids needed to run the engine; None without a language model."""
        return None

    def build(self, out: str | Path, *, force: bool = False) -> EngineTree:
        """Build this engine alone, with its files at the top level of `out`.

        Args:
            force: rebuild it even if the existing tree has an identical engine.
        Raises:
            DittoError: the build failed; `out` is unchanged.
        """
        chosen = self.resolved_target()
        with recording() as stages, staged(Path(out), self.source.places) as directory:
            described = self.described(chosen)
            announce(plan_of(self.source, self.model_type, chosen, described), directory)
            built = self.build_into(
                chosen, described, directory, directory, EngineCache.from_tree(Path(out), self.source.state, force)
            )
            self.source.copy_processor(directory / "processor")
            settings = {self.name: self.settings()}
            limits = self.tree_limits(chosen)
            finish(directory, self.source, self.model_type, chosen, built, settings, limits, self.tokens(), stages)
        return EngineTree.open(out)

    def described(self, target: Target) -> Described:
        """Jobs and networks of this engine and engines that share its weights.

        Raises:
            CheckpointError, ConfigError: the model or the settings do not fit.
            ModelError: the model uses an operation that engines do not support.
        """
        return describe_all(self.job(target))

    def build_into(
        self, target: Target, described: Described, directory: Path, root: Path, reuse: EngineCache
    ) -> dict[str, Built]:
        """Build the engine from `described` into `directory`, part of the tree at `root`.

        Raises:
            DittoError: the build failed.
        """
        return {
            name: build(
                job,
                network,
                target,
                self.tensorrt,
                self.compute_capabilities,
                directory / name if job.beside else directory,
                root,
                reuse,
            )
            for name, (job, network) in described.items()
        }


def parse_dtype(dtype: torch.dtype | str) -> torch.dtype | Auto:
    """The dtype of a long or short name (`fp16`) or of a dtype; `auto` stays `auto`.

    Raises:
        ConfigError: engines do not support it.
    """
    if dtype == "auto":
        return "auto"
    known = DTYPES.get(_SHORT_DTYPES.get(dtype, dtype)) if isinstance(dtype, str) else dtype
    if known not in DTYPES.values():
        raise ConfigError(f"dtype {dtype} is not supported", remedy=f"choose from auto, {', '.join(DTYPES)}")
    return known  # type: ignore[return-value]


def parse_weights(place: str) -> WeightPlacement:
    """The weight placement of a name.

    Raises:
        ConfigError: the name is unknown.
    """
    for known in get_args(WeightPlacement):
        if place == known:
            return known
    raise ConfigError(
        f"{place!r} is not a weight placement", remedy=f"choose from {', '.join(get_args(WeightPlacement))}"
    )


def finish(
    root: Path,
    source: ModelSource,
    model_type: str,
    target: Target,
    built: dict[str, Built],
    settings: dict[str, Any],
    limits: TreeLimits,
    tokens: Tokens | None,
    stages: Sequence[StageRecord],
) -> None:
    """Write the manifest of a tree with complete components, and check the tree.

    Raises:
        TreeError: the tree is incomplete.
    """
    used = frozenset(name for part in built.values() for name in part.used)
    libraries = {part.library for part in built.values() if part.library is not None}
    manifest = Manifest(
        ditto=ditto.__version__,
        target=target.name,
        library=", ".join(sorted(libraries)) or None,
        versions=versions(),
        model=source.name,
        model_type=model_type,
        settings={**settings, **target.settings()},
        limits=limits,
        checkpoint=source.checkpoint,
        tokens=tokens,
        generation={} if tokens is None else answer_settings(source.generation_config),
        components={name: part.component for name, part in built.items()},
        unused=source.unused(used),
        stages=[asdict(record) for record in stages],
        files=record_files(root),
    )
    write_manifest(manifest, root)
    EngineTree.open(root)
