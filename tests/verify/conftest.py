"""Checkpoints, and trees that have their own copy of the weights."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from ditto.engine import EngineTree
from tests.support.faults import planted
from tests.support.models import llama, llava
from tests.support.trees import llama_tree as build_llama
from tests.support.trees import llava_tree as build_llava


@frozen
class Pair:
    """A checkpoint and its tree, not to be changed."""

    checkpoint: Path
    sound: EngineTree

    def broken(self, out: Path, **fault: Any) -> EngineTree:
        """A copy of the tree with a fault; see `planted`."""
        return planted(EngineTree.open(shutil.copytree(self.sound.root, out)), **fault)


@pytest.fixture(scope="session")
def llavas(tmp_path_factory):
    directory = tmp_path_factory.mktemp("verify")
    llava().save_pretrained(directory / "checkpoint")
    return Pair(directory / "checkpoint", build_llava(directory / "tree"))


@pytest.fixture(scope="session")
def llamas(tmp_path_factory):
    directory = tmp_path_factory.mktemp("verify")
    llama().save_pretrained(directory / "checkpoint")
    return Pair(directory / "checkpoint", build_llama(directory / "tree"))
