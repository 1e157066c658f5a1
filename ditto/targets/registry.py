"""Targets by name, imported on first use."""

from __future__ import annotations

from loguru import logger

from ditto.bindings import install_command, is_installed
from ditto.configs import AUTO, TARGETS, TrtllmConfig
from ditto.errors import ConfigError, MissingLibraryError
from ditto.targets.target import Target


def target(name: str, trtllm: TrtllmConfig | None = None) -> Target:
    """The target of a name; `auto` selects the first whose library is installed, and logs it.

    Args:
        trtllm: settings of the target `trtllm`; None for the defaults.
    Raises:
        ConfigError: there is no target of that name.
        MissingLibraryError: `auto` finds no installed library.
    """
    if name == AUTO:
        chosen = _installed()
        logger.info("target {}: the first whose library is installed", chosen)
        return target(chosen, trtllm)
    if name in ("tensorrt", "tensorrt-rtx"):
        from ditto.targets.tensorrt.target import NativeTarget

        return NativeTarget(name, "tensorrt" if name == "tensorrt" else "tensorrt_rtx")
    if name == "trtllm":
        from ditto.targets.trtllm.target import TrtllmTarget

        return TrtllmTarget(name, trtllm or TrtllmConfig())
    raise ConfigError(f"there is no target {name!r}", remedy=f"choose from {', '.join((AUTO, *TARGETS))}")


def _installed() -> str:
    libraries = (("trtllm", "tensorrt_llm"), ("tensorrt", "tensorrt"), ("tensorrt-rtx", "tensorrt_rtx"))
    for name, library in libraries:
        if is_installed(library):
            return name
    raise MissingLibraryError(
        "none of TensorRT-LLM, TensorRT and TensorRT-RTX is installed",
        remedy=f"{install_command('rtx')} (builds on any machine), or --target trtllm (describes engines that another "
        "machine compiles)",
    )
