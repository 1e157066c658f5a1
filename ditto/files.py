"""Safe reading of untrusted files: regular files only, and strict JSON.

Errors are Python's own; the caller knows the purpose of the file and adds it to the message.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

# JSON files of checkpoints and trees are far smaller; a sparse file may claim any size.
_MAX_JSON_BYTES = 256_000_000


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; pipes, which could block, and devices are errors.

    Raises:
        OSError: the file cannot be read, or is not a regular file.
    """
    check_regular(path)
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # replaced since the check
        file.close()
        raise _not_regular(path)
    return file


def check_regular(path: Path) -> int:
    """Check that a path is a regular file, not a directory, pipe or device.

    Returns:
        Its size in bytes.
    Raises:
        OSError: it is not a regular file, or its status cannot be read.
    """
    try:
        found = os.stat(path)
    except ValueError as error:  # an invalid file name
        raise OSError(errno.EINVAL, str(error), str(path)) from error
    if not stat.S_ISREG(found.st_mode):
        raise _not_regular(path)
    return found.st_size


def _not_regular(path: Path) -> OSError:
    return OSError(errno.EINVAL, "it is not a regular file", str(path))


def read_json(path: Path, lenient: bool = False) -> Any:
    """Content of a JSON file; see `parse_json`.

    Raises:
        OSError: the file cannot be read, or is not a regular file.
        ValueError: the content is not valid JSON.
    """
    return parse_json(read_whole(path), lenient)


def read_whole(path: Path) -> bytes:
    """Bytes of a JSON file, of limited size.

    Raises:
        OSError: the file cannot be read, is not a regular file, or is too large.
    """
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > _MAX_JSON_BYTES:
            raise OSError(errno.EFBIG, f"it is larger than {_MAX_JSON_BYTES // 10**6} MB", str(path))
        return file.read()


def parse_json(content: bytes, lenient: bool = False) -> Any:
    """Parse standard JSON: UTF-8, no duplicate keys in an object, no NaN or infinity.

    Args:
        lenient: allow these, as Python and so transformers does for configurations.
    Raises:
        ValueError: the content is not valid JSON, or is nested too deeply.
    """
    try:
        text = content.decode("utf-8")
        if lenient:
            return json.loads(text)
        data = json.loads(text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)
        if "\\ud" in text.lower():  # an unpaired surrogate can neither be printed nor be part of a file name
            json.dumps(data, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return data


def _object(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in pairs:
        if name in result:
            raise ValueError(f"the key {name!r} is there twice")
        result[name] = value
    return result


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text} is too large a number")
    return value
