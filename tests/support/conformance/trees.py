"""A whole tree against the tables of a version."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import define, evolve, field

import ditto.targets.trtllm.plugins  # noqa: F401 - network files name its layers
from ditto.network import Network, load
from tests.support.conformance.configs import check_config
from tests.support.conformance.networks import NetworkCheck, Profiles
from tests.support.conformance.plugins import PluginCheck
from tests.support.conformance.rules import Scope, Section, Violation, violation
from tests.support.conformance.tables import Tables, load_tables


@define
class Part:
    """One engine of a tree, `llm` or `vision`, as its files say it.

    Args:
        config: of config.json.
        network: of network.json.
        profiles: [min, opt, max] of each named dimension, by profile.
    """

    config: Any
    network: Network
    profiles: Profiles


@define
class Tree:
    """What is checked: parts by name, and the directory if there is one."""

    parts: dict[str, Part] = field(factory=dict)
    directory: Path | None = None

    @staticmethod
    def open(directory: Path) -> Tree:
        """A tree, or a single language model's engine."""
        parts: dict[str, Part] = {}
        for name in ("llm", "vision"):
            place = directory / name
            if name == "llm" and not place.is_dir():
                place = directory
            if (place / "network.json").is_file():
                network = load(place / "network.json", place / "network.safetensors")
                parts[name] = Part(_json(place / "config.json"), network, _profiles(directory, name))
        return Tree(parts, directory if (directory / "llm").is_dir() or "vision" in parts else None)


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _profiles(directory: Path, name: str) -> Profiles:
    profiles = _json(directory / "ditto.json")["components"][name]["spec"]["profiles"]
    return {profile["phase"]: profile["ranges"] for profile in profiles}


# What expressions call the parts of the config files.
_TITLES = {
    "pretrained": ("llm", "pretrained_config"),
    "build": ("llm", "build_config"),
    "plugin": ("llm", "build_config.plugin_config"),
    "vision": ("vision", "builder_config"),
}


def _scope(tree: Tree, tables: Tables) -> Scope:
    values: dict[str, Any] = {**tables.data["sets"], "version": tables.version}
    scope = Scope(values, tables.data["names"])
    for title, (part, path) in _TITLES.items():
        data: Any = tree.parts[part].config if part in tree.parts else None
        for key in path.split("."):
            data = data.get(key) if isinstance(data, dict) else None
        defaults = {row["path"]: row["default"] for row in tables.data[part]["config"] if "default" in row}
        values[title] = Section(data, defaults, path, scope)
    return scope


def violations(tree: Tree, version: str) -> list[Violation]:
    """Everything in which a tree breaks the contract of a version; none for a good one."""
    tables = load_tables(version)
    scope = _scope(tree, tables)
    ranges = {row["key"]: row for row in tables.data["ranges"]}
    found = list(_configs(tree, tables, scope))
    if not found:  # the networks are held against what the config files say
        scope = evolve(scope, strict=True)
        assert not list(_configs(tree, tables, scope))
        for name, part in tree.parts.items():
            where = f"{name} network"
            found += NetworkCheck(where, tables.data[name], ranges, part.network, part.profiles, scope).run()
            if name == "llm":
                found += PluginCheck(where, tables, part.network, scope).run()
        found += _checks(tree, tables, scope)
    return found + list(_files(tree, tables, scope))


def _configs(tree: Tree, tables: Tables, scope: Scope) -> Iterator[Violation]:
    for name, part in tree.parts.items():
        yield from check_config(f"{name}/config.json", tables.data[name]["config"], part.config, scope)


def _checks(tree: Tree, tables: Tables, scope: Scope) -> Iterator[Violation]:
    for row in tables.data["checks"]:
        if set(row["needs"]) <= tree.parts.keys() and scope.breaks(row["test"]):
            yield violation("the tree:", f"{row['message']} (`{row['test']}`)", row)


def _files(tree: Tree, tables: Tables, scope: Scope) -> Iterator[Violation]:
    """Directories and files of a tree. Engines are there all or none: a tree may still have to be compiled."""
    if tree.directory is None:
        return
    rows = [row for row in tables.data["files"] if set(row["needs"]) <= tree.parts.keys()]
    rows = [row for row in rows if scope.evaluate(row.get("when", "True"))]
    compiled = any((tree.directory / row["path"]).is_file() for row in rows if row["kind"] == "engine")
    for row in rows:
        path = tree.directory / row["path"]
        if not (
            path.is_dir()
            if row["kind"] == "directory"
            else path.is_file() or (row["kind"] == "engine" and not compiled)
        ):
            yield violation(f"{row['path']}", f"is no {row['kind']}", row)
