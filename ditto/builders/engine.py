"""Base class of all builders: frozen settings, `with_*` copies, and `build`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from attrs import asdict, evolve, frozen
from torch import nn
from typing_extensions import Self

from ditto.builders.pipeline import build
from ditto.builders.source import DTYPES, ModelSource
from ditto.configs import AUTO, TensorRTConfig, TrtllmConfig
from ditto.configs.build import (
    PRESETS,
    BuildSettings,
    EngineLayout,
    ProfileKind,
    WeightPlacement,
    checked_choice,
    positive,
)
from ditto.engine import EngineTree, Tokens, TreeLimits
from ditto.errors import ConfigError
from ditto.targets import ModelPart, Target, target

Auto = Literal["auto"]
Preset = Literal["preset"]
PRESET: Preset = "preset"
_SHORT_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


def itself(model: nn.Module) -> nn.Module:
    """The model itself, where a part of it could be captured."""
    return model


@frozen(kw_only=True, slots=False)
class EngineBuilder(ABC):
    """Settings of the engines of one part of a model. Nothing is loaded or built before `build`.

    Args:
        source: source of the model.
        max_batch_size: maximum number of items per call.
        dtype: dtype in which the engine computes; `auto` for the model's own.
        target: a name in `ditto.configs.TARGETS`, or `auto` for the first whose library is installed.
        compute_capabilities: GPUs to build for, e.g. `8.9`; empty for a portable engine (TensorRT-RTX) or for the
            installed GPU (TensorRT).
        optimize: preset of `weights`, `engines`, `profiles` and `tuning` (`ditto.configs.build.PRESETS`).
        weights, engines, profiles, tuning: as in `BuildSettings`; `preset` for the value of the preset.
        tensorrt: TensorRT's own settings.
        trtllm: options of TensorRT-LLM engines, for the target `trtllm`.
    """

    name: ClassVar[str]

    source: ModelSource
    max_batch_size: int = 1
    dtype: torch.dtype | Auto = "auto"
    target: str = AUTO
    compute_capabilities: tuple[str, ...] = ()
    optimize: str = "portable"
    weights: WeightPlacement | Preset = PRESET
    engines: EngineLayout | Preset = PRESET
    profiles: ProfileKind | Preset = PRESET
    tuning: str = PRESET
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

    def with_optimize(self, preset: str) -> Self:
        """Use a preset: `portable` (default), `latency` or `size`; settings that are stated win over it."""
        return evolve(self, optimize=checked_choice("optimize", preset))

    def with_weights(self, place: str) -> Self:
        """Embed the weights (`embedded`) or pass large ones as inputs (`external`)."""
        return evolve(self, weights=checked_choice("weights", place))

    def with_engines(self, layout: str) -> Self:
        """Run prefill and decode in one engine (`combined`) or in one each (`separate`)."""
        return evolve(self, engines=checked_choice("engines", layout))

    def with_profiles(self, kind: str) -> Self:
        """Use one profile for all shapes of a phase (`dynamic`), or also static ones (`specialized`)."""
        return evolve(self, profiles=checked_choice("profiles", kind))

    def with_tuning(self, tuning: str) -> Self:
        """Use the forms that are fast on a compute capability, e.g. `9.0`; `auto`, or `none`."""
        return evolve(self, tuning=str(tuning))

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
        chosen.check(self.build_settings)
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

    @property
    def build_settings(self) -> BuildSettings:
        """How the engines are built."""
        chosen: dict[str, Any] = {
            name: preset if getattr(self, name) == PRESET else getattr(self, name)
            for name, preset in PRESETS[self.optimize].items()
        }
        return BuildSettings(**chosen, tensorrt=self.tensorrt, compute_capabilities=self.compute_capabilities)

    @abstractmethod
    def part(self, target: Target) -> ModelPart:
        """The part of the model that the engines run.

        Raises:
            CheckpointError, ConfigError: the model or the settings do not fit.
        """

    @property
    @abstractmethod
    def model_type(self) -> str:
        """Hugging Face's name of the model's family (`model_type`)."""

    def settings(self) -> dict[str, Any]:
        """Settings for the manifest, derived ones included."""
        capabilities = list(self.compute_capabilities)
        return {"optimize": self.optimize, **asdict(self.build_settings), "compute_capabilities": capabilities}

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
        """Build this part of the model alone, with its files at the top level of `out`.

        Args:
            force: rebuild engines even if the existing tree has identical ones.
        Raises:
            DittoError: the build failed; `out` is unchanged.
        """
        return build({self.name: self}, out, force=force)


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
