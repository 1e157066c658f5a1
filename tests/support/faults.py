"""Faults planted in a tree, as if it had been built with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import evolve
from safetensors.torch import load_file, save_file

from ditto.engine import EngineTree
from ditto.engine.manifest import write_manifest
from ditto.engine.tree import record_files

Nodes = list[dict[str, Any]]


def planted(
    tree: EngineTree,
    component: str,
    tensor: str | None = None,
    node: Callable[[Nodes], None] | None = None,
    literal: Callable[[Nodes], str] | None = None,
) -> EngineTree:
    """The tree, changed where it lies.

    Args:
        tensor: the end of a name in the component's own weights; scaled by 1.1.
        node: changes a node of network.json, given all of them.
        literal: gives the digest of a literal to scale by 1.1, from the nodes.
    """
    directory = tree.directory(component)
    path = directory / "network.json"
    data = json.loads(path.read_text())
    if tensor is not None:
        _scale(directory / tree.component(component).weights, tensor)
    if node is not None:
        node(data["nodes"])
        path.write_text(json.dumps(data))
    if literal is not None:
        _scale(directory / "network.safetensors", literal(data["nodes"]))
    write_manifest(evolve(tree.manifest, files=record_files(tree.root)), tree.root)
    return EngineTree.open(tree.root)


def _scale(path: Path, end: str) -> None:
    tensors = load_file(path)
    (name,) = (name for name in tensors if name.endswith(end))
    tensors[name] = tensors[name] * 1.1
    save_file(tensors, path)
