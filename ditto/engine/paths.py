"""Paths of a tree, checked so that a manifest cannot name files outside it."""

from __future__ import annotations

import os
import posixpath
from pathlib import Path

from ditto.errors import TreeError
from ditto.files import check_regular

_REMEDY = "do not use this tree: build it again from the model"


def listed(*parts: str) -> str:
    """A path as the manifest lists it: relative to the tree, `.` for the tree itself.

    Args:
        parts: path components to join; one may begin with `..`, as in weights that two engines share.
    Raises:
        TreeError: the path leads out of the tree, or is not a path.
    """
    name = posixpath.normpath(posixpath.join(".", *parts))
    outside = name == ".." or name.startswith(("../", "/")) or any(part.startswith("/") for part in parts)
    if outside or not all(parts) or "\0" in name:
        raise TreeError(f"the manifest names {'/'.join(parts)!r}, which is not a path inside the tree", remedy=_REMEDY)
    return name


def inside(root: Path, *parts: str) -> Path:
    """Full path of a file or directory of a tree, checked.

    Every path that a manifest names passes through this function before it is used.

    Raises:
        TreeError: the path or a link in it leads out of the tree, or it is not a path.
    """
    name = listed(*parts)
    path, top = root / name, os.path.realpath(root)
    if os.path.commonpath([top, os.path.realpath(path)]) != top:
        raise TreeError(f"{name} is a link that leads out of the tree", where=str(root), remedy=_REMEDY)
    return path


def file_bytes(root: Path, name: str) -> int:
    """Size of a tree's file in bytes.

    Raises:
        TreeError: the file is missing, is outside the tree, or is not a regular file.
    """
    try:
        return check_regular(inside(root, name))
    except (FileNotFoundError, NotADirectoryError):
        raise TreeError(f"{name} is missing", where=str(root), remedy="build the tree again") from None
    except OSError as error:
        raise TreeError(f"cannot read {name}: {error.strerror}", where=str(root)) from error
