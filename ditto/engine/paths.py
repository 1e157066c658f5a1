"""The paths of a tree: everything that its manifest names lies inside of it, whatever the manifest says."""

from __future__ import annotations

import os
import posixpath
from pathlib import Path

from ditto.errors import TreeError
from ditto.files import check_regular

_REMEDY = "do not use this tree: build it again from the model"


def listed(*parts: str) -> str:
    """A path of a tree as its manifest lists it: relative to the tree, `.` for the tree itself.

    Args:
        parts: one below the other; a part may begin with `..`, as weights that two engines share do.
    Raises:
        TreeError: it leads out of the tree, or is not a path.
    """
    name = posixpath.normpath(posixpath.join(".", *parts))
    outside = name == ".." or name.startswith(("../", "/")) or any(part.startswith("/") for part in parts)
    if outside or not all(parts) or "\0" in name:
        raise TreeError(f"the manifest names {'/'.join(parts)!r}, which is not a path inside the tree", remedy=_REMEDY)
    return name


def inside(root: Path, *parts: str) -> Path:
    """The place of a path of a tree. Every path that a manifest names comes through here before it is used.

    Raises:
        TreeError: it leads out of the tree, be it by a link, or is not a path.
    """
    name = listed(*parts)
    path, top = root / name, os.path.realpath(root)
    if os.path.commonpath([top, os.path.realpath(path)]) != top:
        raise TreeError(f"{name} is a link that leads out of the tree", where=str(root), remedy=_REMEDY)
    return path


def file_bytes(root: Path, name: str) -> int:
    """The size of a file of a tree.

    Raises:
        TreeError: it is missing, leads out of the tree, or is not a regular file.
    """
    try:
        return check_regular(inside(root, name))
    except (FileNotFoundError, NotADirectoryError):
        raise TreeError(f"{name} is missing", where=str(root), remedy="build the tree again") from None
    except OSError as error:
        raise TreeError(f"cannot read {name}: {error.strerror}", where=str(root)) from error
