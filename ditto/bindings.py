"""The one door to `tensorrt`, `tensorrt_rtx` and `tensorrt_llm`: imported late, and checked."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any, Literal

from attrs import frozen

from ditto.errors import MissingLibraryError

Library = Literal["tensorrt", "tensorrt_rtx"]

# The oldest versions with attention, KV-cache update, rotary embedding and the second normalization layer.
_NATIVE_SINCE = {"tensorrt": (10, 15), "tensorrt_rtx": (1, 4)}
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
            f"{_TITLE[library]} is not installed", remedy=f"pip install 'ditto[{_EXTRA[library]}]'"
        )
    try:
        module = importlib.import_module(library)
        return TensorRT(library, module, str(module.__version__))
    except (ImportError, OSError, AttributeError) as error:
        raise MissingLibraryError(
            f"{_TITLE[library]} is installed but does not import: {error}",
            remedy=f"install it again: pip install --force-reinstall 'ditto[{_EXTRA[library]}]'",
        ) from error


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
            remedy=f"pip install --upgrade 'ditto[{_EXTRA[library]}]', or build with --target tensorrt-rtx",
        )
    return found
