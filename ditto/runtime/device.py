"""Checks that this machine can run the engines of a tree."""

from __future__ import annotations

from typing import get_args

import torch

from ditto.bindings import Library, TensorRT, load_native
from ditto.engine import EngineTree
from ditto.errors import DeviceError

# The oldest GPU generation that TensorRT supports: Turing.
_LEAST_CAPABILITY = (7, 5)


def this_gpu() -> torch.device:
    """The GPU that torch uses.

    Raises:
        DeviceError: there is no GPU, or torch or TensorRT cannot use it.
    """
    if torch.version.cuda is None:
        raise DeviceError(
            f"torch {torch.__version__} is built without CUDA",
            remedy="install a torch with CUDA, or run with --session reference",
        )
    if not torch.cuda.is_available():
        raise DeviceError(
            "there is no GPU that torch can use",
            remedy="check that `nvidia-smi` works and CUDA_VISIBLE_DEVICES names a GPU, or run with --session "
            "reference",
        )
    device = torch.device("cuda", torch.cuda.current_device())
    check_capability(torch.cuda.get_device_capability(device), torch.cuda.get_device_name(device))
    return device


def check_capability(capability: tuple[int, int], name: str) -> None:
    """Check that TensorRT supports a GPU's generation.

    Raises:
        DeviceError: the GPU is too old.
    """
    if capability < _LEAST_CAPABILITY:
        found, least = (".".join(map(str, numbers)) for numbers in (capability, _LEAST_CAPABILITY))
        raise DeviceError(
            f"{name} has compute capability {found}, TensorRT needs {least}",
            remedy="use a newer GPU, or run with --session reference",
        )


def library_for(tree: EngineTree) -> TensorRT:
    """The TensorRT library that built the engines of a tree; only the same version loads them.

    Raises:
        DeviceError: the engines are not compiled, need TensorRT-LLM, or were built by another version.
        MissingLibraryError: the library is not installed.
    """
    manifest = tree.manifest
    library, _, version = (manifest.library or "").partition(" ")
    if not version:
        raise DeviceError(
            "the tree's engines are not compiled yet", where=str(tree.root), remedy="run with --session reference"
        )
    known: list[Library] = [name for name in get_args(Library) if name == library]
    if not known or manifest.target == "trtllm":
        raise DeviceError(
            f"engines of target {manifest.target} are run by {library or 'TensorRT-LLM'}, not by this session",
            where=str(tree.root),
            remedy="build with --target tensorrt-rtx, or run with --session reference",
        )
    found = load_native(known[0])
    if found.version != version:
        raise DeviceError(
            f"the engines are of {library} {version}, {found.title} is installed",
            where=str(tree.root),
            remedy=f"build the tree again, or pip install '{_package(library)}=={version}'",
        )
    return found


def _package(library: str) -> str:
    return "tensorrt_rtx_cu12" if library == "tensorrt_rtx" else library
