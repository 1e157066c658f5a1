"""The one door to `tensorrt`, `tensorrt_rtx` and `tensorrt_llm`: imported late, and checked."""

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

# The oldest versions with attention, KV-cache update, rotary embedding and the second normalization layer.
_NATIVE_SINCE = {"tensorrt": (10, 15), "tensorrt_rtx": (1, 4)}
_PLUGIN_LIBRARY, _PLUGIN_NAMESPACE = "libnvinfer_plugin_tensorrt_llm.so", b"tensorrt_llm"
_EXTRA = {"tensorrt": "tensorrt", "tensorrt_rtx": "rtx", "tensorrt_llm": "trtllm"}
_TITLE = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX", "tensorrt_llm": "TensorRT-LLM"}


@frozen
class TensorRT:
    """A TensorRT library that this process can use.

    Args:
        library: the module's name.
        module: the module; `tensorrt_rtx` has TensorRT's own interface.
        version: as the module states it.
    """

    library: Library
    module: Any
    version: str

    @property
    def title(self) -> str:
        """Its name and version for people."""
        return f"{_TITLE[self.library]} {self.version}"

    @property
    def numbers(self) -> tuple[int, ...]:
        """The version's numbers."""
        return tuple(int(part) for part in self.version.split(".") if part.isdigit())

    @property
    def is_weakly_typed(self) -> bool:
        """Whether it still builds weakly typed networks: TensorRT 10 does; TensorRT 11 and RTX do not."""
        return self.library == "tensorrt" and self.numbers < (11,)

    @property
    def has_native_layers(self) -> bool:
        """Whether it has the layers that the plugin-free target uses."""
        return self.numbers >= _NATIVE_SINCE[self.library]


def is_installed(library: str) -> bool:
    """Whether a library can be found; it is not imported."""
    return importlib.util.find_spec(library) is not None


def load(library: Library) -> TensorRT:
    """Import a TensorRT library.

    Raises:
        MissingLibraryError: it is not installed, or its import fails.
    """
    if not is_installed(library):
        raise MissingLibraryError(
            f"{_TITLE[library]} is not installed", remedy=f"pip install '.[{_EXTRA[library]}]' in Ditto's clone"
        )
    try:
        module = importlib.import_module(library)
        return TensorRT(library, module, str(module.__version__))
    except (ImportError, OSError, AttributeError) as error:
        raise MissingLibraryError(
            f"{_TITLE[library]} is installed but does not import: {error}",
            remedy=f"install it again: pip install --force-reinstall '.[{_EXTRA[library]}]' in Ditto's clone",
        ) from error


def plugins_version() -> str | None:
    """The version of the installed TensorRT-LLM, None if there is none; it is not imported."""
    try:
        return importlib.metadata.version("tensorrt_llm")
    except importlib.metadata.PackageNotFoundError:
        return None


def load_plugins() -> TensorRT:
    """Import TensorRT and load TensorRT-LLM's plugin library into it, without importing TensorRT-LLM.

    Raises:
        MissingLibraryError: one of the two is not installed, or does not load.
    """
    spec = importlib.util.find_spec("tensorrt_llm")
    if spec is None or not spec.submodule_search_locations:
        raise MissingLibraryError("TensorRT-LLM is not installed", remedy="pip install '.[trtllm]' in Ditto's clone")
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
        MissingLibraryError: it is not installed, or too old.
    """
    found = load(library)
    if not found.has_native_layers:
        since = ".".join(map(str, _NATIVE_SINCE[library]))
        raise MissingLibraryError(
            f"{found.title} is too old: attention and KV-cache layers came with {since}",
            remedy=f"pip install --upgrade '.[{_EXTRA[library]}]' in Ditto's clone, or --target tensorrt-rtx",
        )
    return found
