"""Late import and checks of `tensorrt`, `tensorrt_rtx` and `tensorrt_llm`."""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any, Literal

from attrs import frozen

from ditto.errors import MissingLibraryError

Library = Literal["tensorrt", "tensorrt_rtx"]

DISTRIBUTION = "ditto-trt"
"""Name of the project for pip; `ditto` on the package index is another project."""

# The oldest versions with attention, KV cache update, rotary embedding and version 2 of the normalization layer.
_NATIVE_SINCE = {"tensorrt": (10, 15), "tensorrt_rtx": (1, 4)}
_PLUGIN_LIBRARY, _PLUGIN_NAMESPACE = "libnvinfer_plugin_tensorrt_llm.so", b"tensorrt_llm"
_EXTRA = {"tensorrt": "tensorrt", "tensorrt_rtx": "rtx", "tensorrt_llm": "trtllm"}
_TITLE = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX", "tensorrt_llm": "TensorRT-LLM"}


@frozen
class TensorRT:
    """A TensorRT library that this process can use.

    Args:
        library: name of the module.
        module: the module; `tensorrt_rtx` has the same interface as `tensorrt`.
        version: version that the module states.
    """

    library: Library
    module: Any
    version: str

    @property
    def title(self) -> str:
        """Display name and version."""
        return f"{_TITLE[self.library]} {self.version}"

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numeric components of the version."""
        return tuple(int(part) for part in self.version.split(".") if part.isdigit())

    @property
    def is_weakly_typed(self) -> bool:
        """Whether it can build weakly typed networks: TensorRT 10 can; TensorRT 11 and RTX cannot."""
        return self.library == "tensorrt" and self.numbers < (11,)

    @property
    def rounds_to_tf32(self) -> bool:
        """Whether products round float32 operands to TF32 even without `BuilderFlag.TF32`.

        TensorRT-RTX 1.6.1 does on an H200: a product of 256 terms is 3.0e-4 off with the flag and without, as PyTorch's
        in TF32 is.
        """
        return self.library == "tensorrt_rtx"

    @property
    def has_native_layers(self) -> bool:
        """Whether it has the native layers that the plugin-free target uses."""
        return self.numbers >= _NATIVE_SINCE[self.library]


def install_command(extra: str, *options: str) -> str:
    """The command that adds what an extra brings. It also works where Ditto is installed from a clone."""
    return " ".join(("pip install", *options, f"'{DISTRIBUTION}[{extra}]'"))


def is_installed(library: str) -> bool:
    """Whether a library is installed; does not import it."""
    return importlib.util.find_spec(library) is not None


def load(library: Library) -> TensorRT:
    """Import a TensorRT library.

    Raises:
        MissingLibraryError: the library is not installed, or its import fails.
    """
    if not is_installed(library):
        raise MissingLibraryError(f"{_TITLE[library]} is not installed", remedy=install_command(_EXTRA[library]))
    try:
        module = importlib.import_module(library)
        return TensorRT(library, module, str(module.__version__))
    except (ImportError, OSError, AttributeError) as error:
        raise MissingLibraryError(
            f"{_TITLE[library]} is installed but does not import: {error}",
            remedy=f"install it again: {install_command(_EXTRA[library], '--force-reinstall')}",
        ) from error


def plugins_version() -> str | None:
    """Version of the installed TensorRT-LLM, or None; does not import it."""
    try:
        return importlib.metadata.version("tensorrt_llm")
    except importlib.metadata.PackageNotFoundError:
        return None


def load_plugins() -> TensorRT:
    """Import TensorRT and load TensorRT-LLM's plugin library, without importing TensorRT-LLM.

    Raises:
        MissingLibraryError: TensorRT or TensorRT-LLM is not installed, or does not load.
    """
    spec = importlib.util.find_spec("tensorrt_llm")
    if spec is None or not spec.submodule_search_locations:
        raise MissingLibraryError("TensorRT-LLM is not installed", remedy=install_command("trtllm"))
    trt = load("tensorrt")
    path = Path(spec.submodule_search_locations[0], "libs", _PLUGIN_LIBRARY)
    try:
        library = ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
        library.initTrtLlmPlugins.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        library.initTrtLlmPlugins.restype = ctypes.c_bool
        done = library.initTrtLlmPlugins(None, _PLUGIN_NAMESPACE)
    except (OSError, AttributeError) as error:
        raise MissingLibraryError(
            f"TensorRT-LLM's plugin library does not load: {error}",
            remedy="install TensorRT-LLM again, in an environment of its own; its CUDA must be that of the driver",
        ) from error
    if not done:
        raise MissingLibraryError(
            "TensorRT-LLM's plugin library does not start", remedy="install TensorRT-LLM again, in its own environment"
        )
    return trt


def load_native(library: Library) -> TensorRT:
    """Import a TensorRT library that has the layers of the plugin-free target.

    Raises:
        MissingLibraryError: the library is not installed, or is too old.
    """
    found = load(library)
    if not found.has_native_layers:
        since = ".".join(map(str, _NATIVE_SINCE[library]))
        raise MissingLibraryError(
            f"{found.title} is too old: attention and KV-cache layers came with {since}",
            remedy=f"{install_command(_EXTRA[library], '--upgrade')}, or --target tensorrt-rtx",
        )
    return found
