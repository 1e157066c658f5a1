"""A tiny LLaVA on disk, its tree, and both as systems."""

from __future__ import annotations

import pytest
import torch

from ditto import LlavaModel
from ditto.bench.baselines import EagerBaseline
from ditto.bench.system import TreeSystem, open_endless
from ditto.text.processing import preprocessor_of
from ditto.verify.model import load
from tests.support.models import llava


@pytest.fixture(scope="session")
def saved_llava(tmp_path_factory):
    """A checkpoint of a tiny random LLaVA."""
    directory = tmp_path_factory.mktemp("saved") / "llava"
    llava().save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def saved_tree(saved_llava, tmp_path_factory):
    """The tree of that checkpoint; not to be changed."""
    builder = LlavaModel.from_pretrained(str(saved_llava)).with_batch(2).with_target("tensorrt-rtx")
    return builder.build_all(tmp_path_factory.mktemp("saved") / "tree")


@pytest.fixture
def ours(saved_tree):
    return TreeSystem(open_endless(saved_tree, "reference"))


@pytest.fixture
def eager(saved_llava, saved_tree):
    device = torch.device("cpu")
    return EagerBaseline(load(saved_llava, torch.float32, device), device, preprocessor_of(saved_tree))
