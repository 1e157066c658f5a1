"""Files that somebody else may have made: only regular ones are opened, and JSON is read with nothing left to chance.

Errors are Python's own; whoever asks knows what the file is for and says so.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

# No JSON of a checkpoint or a tree is near it; a sparse file may claim any size.
_MAX_JSON_BYTES = 256_000_000


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading. A pipe, which would keep us waiting, or a device is refused.

    Raises:
        OSError: it cannot be read, or is not a regular file.
    """
    check_regular(path)
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # put there meanwhile
        file.close()
        raise _not_regular(path)
    return file


def check_regular(path: Path) -> int:
    """Check that a path is a file and not a folder, a pipe or a device; returns its size in bytes.

    Raises:
        OSError: it is not, or nothing can be said of it.
    """
    try:
        found = os.stat(path)
    except ValueError as error:  # a name that no file can have
        raise OSError(errno.EINVAL, str(error), str(path)) from error
    if not stat.S_ISREG(found.st_mode):
        raise _not_regular(path)
    return found.st_size


def _not_regular(path: Path) -> OSError:
    return OSError(errno.EINVAL, "it is not a regular file", str(path))


def read_json(path: Path, lenient: bool = False) -> Any:
    """The content of a JSON file; see `parse_json`.

    Raises:
        OSError: it cannot be read, or is not a regular file.
        ValueError: it is not JSON.
    """
    return parse_json(read_whole(path), lenient)


def read_whole(path: Path) -> bytes:
    """The bytes of a file that is to be read as JSON.

    Raises:
        OSError: it cannot be read, is not a regular file, or is larger than any JSON file of ours.
    """
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > _MAX_JSON_BYTES:
            raise OSError(errno.EFBIG, f"it is larger than {_MAX_JSON_BYTES // 10**6} MB", str(path))
        return file.read()


def parse_json(content: bytes, lenient: bool = False) -> Any:
    """JSON as the standard has it: UTF-8, no key twice in an object, no NaN and no infinity.

    Args:
        lenient: take those, as Python and so transformers does with its configurations.
    Raises:
        ValueError: it is not, or is nested too deeply to be read.
    """
    try:
        text = content.decode("utf-8")
        if lenient:
            return json.loads(text)
        data = json.loads(text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)
        if "\\ud" in text.lower():  # half of a surrogate pair can be neither printed nor be part of a name
            json.dumps(data, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return data


def _object(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in pairs:
        if name in made:
            raise ValueError(f"the key {name!r} is there twice")
        made[name] = value
    return made


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text} is too large a number")
    return value
