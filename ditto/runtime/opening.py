"""Choice of a session."""

from __future__ import annotations

from collections.abc import Callable

from loguru import logger

from ditto.engine import EngineTree
from ditto.errors import ConfigError, DeviceError, MissingLibraryError
from ditto.runtime.device import library_for, this_gpu
from ditto.runtime.session import Session

AUTO = "auto"


def _tensorrt(tree: EngineTree) -> Session:
    from ditto.runtime.tensorrt import TensorRTSession

    return TensorRTSession(tree, library_for(tree), this_gpu())


def _reference(tree: EngineTree) -> Session:
    from ditto.runtime.packed import PackedSession
    from ditto.runtime.reference import ReferenceSession
    from ditto.targets import target

    return PackedSession(tree) if target(tree.manifest.target).packs_tokens else ReferenceSession(tree)


SESSIONS: dict[str, Callable[[EngineTree], Session]] = {"tensorrt": _tensorrt, "reference": _reference}


def open_session(tree: EngineTree, name: str = AUTO) -> Session:
    """Open a session for a tree.

    Args:
        name: a name in `SESSIONS`, or `auto` for the best that this machine can run.
    Raises:
        ConfigError: there is no session of that name.
        DeviceError, MissingLibraryError: this machine cannot run the named session.
        TreeError: the tree cannot be run.
    """
    if name == AUTO:
        name = _best(tree)
    if name not in SESSIONS:
        raise ConfigError(f"there is no session {name!r}", remedy=f"choose from {', '.join((AUTO, *SESSIONS))}")
    return SESSIONS[name](tree)


def _best(tree: EngineTree) -> str:
    try:
        this_gpu()
        library_for(tree)
    except (DeviceError, MissingLibraryError) as error:
        logger.info(
            "no GPU session ({}): the tree's networks are run by PyTorch on the CPU (reference session)", error.cause
        )
        return "reference"
    return "tensorrt"
