"""Build settings that are independent of one another, and presets of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from attrs import frozen

from ditto.configs.tensorrt import TensorRTConfig
from ditto.errors import ConfigError

WeightPlacement = Literal["embedded", "external"]
EngineLayout = Literal["combined", "separate"]
ProfileKind = Literal["dynamic", "specialized"]

_MOST = 2**31 - 1  # largest size in TensorRT

CHOICES: Mapping[str, tuple[str, ...]] = {
    "weights": ("embedded", "external"),
    "engines": ("combined", "separate"),
    "profiles": ("dynamic", "specialized"),
}
"""Values of the settings that have a fixed set of them; `tuning` names a compute capability, `none` or `auto`."""


@frozen(kw_only=True)
class BuildSettings:
    """How the engines of a part of a model are built.

    Args:
        weights: `embedded` in the engines, or `external`: large ones are engine inputs.
        engines: prefill and decode as phases of one engine (`combined`), or as one engine each (`separate`).
        profiles: `dynamic`: one profile for all shapes of a phase; `specialized`: additional ones with static shapes
            for batch sizes and typical prompts, with faster kernels.
        tuning: forms that are fast on a GPU: of a measured compute capability; `auto` for the only one in
            `compute_capabilities` or, if there is none, the GPU that is present, where it is measured; `none`.
        tensorrt: TensorRT's own settings.
        compute_capabilities: GPUs to build for, e.g. `8.9`; empty for a portable engine (TensorRT-RTX) or for the
            installed GPU (TensorRT).
    """

    weights: WeightPlacement = "embedded"
    engines: EngineLayout = "combined"
    profiles: ProfileKind = "dynamic"
    tuning: str = "none"
    tensorrt: TensorRTConfig = TensorRTConfig()
    compute_capabilities: tuple[str, ...] = ()

    def text(self) -> str:
        """The settings that presets state, on one line."""
        return ", ".join(f"{name} {getattr(self, name)}" for name in PRESETS["portable"])


PRESETS: Mapping[str, Mapping[str, str]] = {
    "portable": {"weights": "embedded", "engines": "combined", "profiles": "dynamic", "tuning": "none"},
    "latency": {"weights": "external", "engines": "separate", "profiles": "specialized", "tuning": "auto"},
    "size": {"weights": "external", "engines": "combined", "profiles": "dynamic", "tuning": "none"},
}
"""Settings of each preset; a setting that is stated wins over its preset."""


def checked_choice(setting: str, value: str) -> Any:
    """A value of a setting, or the name of a preset.

    Raises:
        ConfigError: there is no such value.
    """
    known = tuple(PRESETS) if setting == "optimize" else CHOICES[setting]
    if value not in known:
        raise ConfigError(f"{value!r} is not a value of {setting}", remedy=f"choose from {', '.join(known)}")
    return value


def refuse_settings(settings: BuildSettings, target: str, supported: Mapping[str, tuple[str, ...]]) -> None:
    """Check that a target supports all settings.

    Args:
        supported: accepted values by setting, for settings of which it does not accept all.
    Raises:
        ConfigError: it does not.
    """
    for setting, values in supported.items():
        value = getattr(settings, setting)
        if value not in values:
            raise ConfigError(
                f"target {target} does not support {setting} {value}",
                remedy=f"build with --{setting} {' or '.join(values)}",
            )


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
