"""Targets by name, imported on first use."""

from __future__ import annotations

from loguru import logger

from ditto.bindings import is_installed
from ditto.configs import AUTO, TARGETS
from ditto.errors import ConfigError, MissingLibraryError
from ditto.targets.target import Target


def target(name: str) -> Target:
    """The target of that name; `auto` takes the first whose library is installed, and says which.

    Raises:
        ConfigError: there is none of that name.
        MissingLibraryError: `auto` finds no library.
    """
    if name == AUTO:
        chosen = _installed()
        logger.info("target {}: the first whose library is installed", chosen)
        return target(chosen)
    if name in ("tensorrt", "tensorrt-rtx"):
        from ditto.targets.tensorrt.target import NativeTarget

        return NativeTarget(name, "tensorrt" if name == "tensorrt" else "tensorrt_rtx")
    raise ConfigError(f"there is no target {name!r}", remedy=f"choose from {', '.join((AUTO, *TARGETS))}")


def _installed() -> str:
    for name, library in (("tensorrt", "tensorrt"), ("tensorrt-rtx", "tensorrt_rtx")):
        if is_installed(library):
            return name
    raise MissingLibraryError(
        "neither TensorRT nor TensorRT-RTX is installed",
        remedy="pip install 'ditto[rtx]' builds on any machine",
    )
