"""Choosing a session."""

from __future__ import annotations

from loguru import logger

from ditto.engine import EngineTree
from ditto.errors import ConfigError
from ditto.runtime.reference import ReferenceSession
from ditto.runtime.session import Session


def open_session(tree: EngineTree, name: str = "auto") -> Session:
    """A session for a tree.

    Args:
        name: `reference`, or `auto` for the best that this machine has.
    Raises:
        ConfigError: there is no session of that name.
        TreeError: the tree cannot be run.
    """
    if name not in ("auto", "reference"):
        raise ConfigError(f"there is no session {name!r}", remedy="choose auto or reference")
    if name == "auto":
        logger.info("no GPU session: the tree's networks are run by PyTorch on the CPU (reference session)")
    return ReferenceSession(tree)
