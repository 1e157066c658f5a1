"""Trees with faults planted in them, and the checkpoints that they should be."""

from __future__ import annotations

import json
import shutil

import pytest
from attrs import evolve
from safetensors.torch import load_file, save_file

from ditto.engine import EngineTree
from ditto.engine.manifest import write_manifest
from ditto.engine.tree import record_files
from tests.support.models import llama, llava
from tests.support.trees import llama_tree as build_llama
from tests.support.trees import llava_tree as build_llava


class Pair:
    """A checkpoint, and a tree with its own copy of the weights."""

    def __init__(self, folder, model, build):
        self.checkpoint = folder / "checkpoint"
        model.save_pretrained(self.checkpoint)
        self._sound = build(folder / "tree")
        self._count = 0

    @property
    def sound(self) -> EngineTree:
        """As built."""
        return self._sound

    def broken(self, component, tensor=None, node=None, literal=None) -> EngineTree:
        """A copy with a fault in a component.

        Args:
            tensor: the end of a weight's name; scaled by 1.1.
            node: a function that changes one node of network.json, given all of them.
            literal: a function from the nodes to the digest of a literal; scaled by 1.1.
        """
        self._count += 1
        root = self._sound.root.with_name(f"broken{self._count}")
        shutil.copytree(self._sound.root, root)
        tree = EngineTree.open(root)
        folder = tree.folder(component)
        if tensor is not None:
            _scale(folder / tree.component(component).weights, tensor)
        path = folder / "network.json"
        data = json.loads(path.read_text())
        if node is not None:
            node(data["nodes"])
            path.write_text(json.dumps(data))
        if literal is not None:
            _scale(folder / "network.safetensors", literal(data["nodes"]))
        # Whoever breaks a tree by building it wrong records what is there.
        write_manifest(evolve(tree.manifest, files=record_files(root)), root)
        return EngineTree.open(root)


def _scale(path, end):
    tensors = load_file(path)
    (name,) = (name for name in tensors if name.endswith(end))
    tensors[name] = tensors[name] * 1.1
    save_file(tensors, path)


@pytest.fixture(scope="session")
def llavas(tmp_path_factory):
    return Pair(tmp_path_factory.mktemp("verify llava"), llava(), build_llava)


@pytest.fixture(scope="session")
def llamas(tmp_path_factory):
    return Pair(tmp_path_factory.mktemp("verify llama"), llama(), build_llama)
