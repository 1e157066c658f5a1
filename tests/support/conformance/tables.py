"""The tables: 0.19.0 whole, the other versions as edits of another one."""

from __future__ import annotations

import copy
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from attrs import frozen

DIRECTORY = Path(__file__).parents[2] / "targets" / "trtllm" / "tables"
VERSIONS = tuple(sorted(path.stem for path in DIRECTORY.glob("*.json")))

# What a row is known by, in the order of preference.
_KEYS = ("path", "name", "creator", "key")


@frozen
class Tables:
    """The contract of one version.

    Args:
        version: of TensorRT-LLM.
        data: the file's content, edits applied.
    """

    version: str
    data: dict[str, Any]

    def plugin(self, creator: str) -> dict[str, Any] | None:
        """The row of a plugin creator."""
        return next((row for row in self.data["plugins"] if row["creator"] == creator), None)


def _key(row: dict[str, Any]) -> str:
    return str(next(row[key] for key in _KEYS if key in row))


def _section(data: dict[str, Any], path: str) -> Any:
    """`plugins.Gemm.fields`: dictionaries by key, lists of rows by what a row is known by."""
    found: Any = data
    for part in path.split("."):
        found = found[part] if isinstance(found, dict) else next(row for row in found if _key(row) == part)
    return found


def _edit(data: dict[str, Any], edit: dict[str, Any]) -> None:
    section = _section(data, edit["section"])
    kind = next(kind for kind in ("set", "replace", "drop", "append", "extend") if kind in edit)
    name, row = edit[kind], edit.get("row")
    if isinstance(section, dict):
        section[name] = [*section[name], *row] if kind == "extend" else row
        return
    places = [place for place, other in enumerate(section) if _key(other) == name]
    if kind == "append":
        section.append(row)
    elif not places:
        raise LookupError(f"{edit['section']} has no {name} to {kind}")
    for place in reversed(places):
        if kind == "set":
            section[place] = {**section[place], **row, "source": edit["source"]}
        elif kind == "replace":
            section[place] = row
        elif kind == "drop":
            del section[place]


@lru_cache
def load_tables(version: str) -> Tables:
    """The tables of a version."""
    own = json.loads((DIRECTORY / f"{version}.json").read_text(encoding="utf-8"))
    if "from" not in own:
        return Tables(version, own)
    data = copy.deepcopy(load_tables(own["from"]).data)
    data["version"] = version
    for edit in own["edits"]:
        _edit(data, edit)
    return Tables(version, data)
