"""config.json files against their rows: presence, type, legal values, and tests that look further."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tests.support.conformance.rules import Scope, Violation, violation

_ABSENT = object()
_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (float, int),
    "bool": (bool,),
    "object": (dict,),
    "list": (list,),
    "any": (object,),
}


def _has_type(value: Any, wanted: str) -> bool:
    if wanted.endswith("?"):
        return value is None or _has_type(value, wanted[:-1])
    if wanted.startswith("list["):
        return isinstance(value, list) and all(_has_type(item, wanted[5:-1]) for item in value)
    is_mistaken_bool = isinstance(value, bool) and wanted in ("int", "float")
    return isinstance(value, _TYPES[wanted]) and not is_mistaken_bool


def _look_up(data: Any, path: str) -> Any:
    """The value at a path; `_ABSENT` for none, None where an object above it is missing (its own row says so)."""
    *above, last = path.split(".")
    for part in above:
        data = data.get(part) if isinstance(data, dict) else None
    return data.get(last, _ABSENT) if isinstance(data, dict) else None


def _others(data: Any, path: str, rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Keys beside those that have a row of their own."""
    directory = path.removesuffix("*").removesuffix(".")
    holder = _look_up(data, directory) if directory else data
    known = {row["path"] for row in rows}
    for name in holder if isinstance(holder, dict) else ():
        if (key := f"{directory}.{name}".lstrip(".")) not in known:
            yield key


def check_config(file: str, rows: Sequence[dict[str, Any]], data: Any, scope: Scope) -> Iterator[Violation]:
    """Everything that a config.json has and should not have, lacks, or has wrong."""
    for row in rows:
        path = row["path"]
        where = f"{file}: {path}"
        if not scope.holds(row.get("when", "True")):
            continue
        if path.endswith("*"):
            for key in _others(data, path, rows):
                yield violation(f"{file}: {key}", "is there and must not be", row)
            continue
        value = _look_up(data, path)
        above = path.rpartition(".")[0]
        if value is _ABSENT:
            if row["need"] == "required":
                yield violation(where, "is missing", row)
        elif above and not isinstance(_look_up(data, above), dict):
            continue
        elif row["need"] == "forbidden":
            yield violation(where, "is there and must not be", row)
        elif not _has_type(value, row["type"]):
            yield violation(where, f"is {value!r}, which is no {row['type'].replace('?', ' or null')}", row)
        elif not _is_legal(value, row, scope):
            yield violation(where, f"is {value!r}, which no reader takes", row)
        elif "test" in row and scope.having(value=value).breaks(row["test"]):
            yield violation(where, f"is {value!r}, which breaks `{row['test']}`", row)


def _is_legal(value: Any, row: dict[str, Any], scope: Scope) -> bool:
    legal = row.get("legal")
    if legal is None or (value is None and row["type"].endswith("?")):
        return True
    return value in (scope[legal[1:]] if isinstance(legal, str) else legal)
