"""The digest of the code that makes engines changes with what the code does, and with nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import ditto
from ditto.builders import code_digest as room
from ditto.builders.code_digest import code_digest, engine_modules, meaning
from ditto.targets import target

PACKAGE = Path(ditto.__file__).parent


@pytest.fixture
def package(tmp_path):
    """A copy of Ditto's source."""
    shutil.copytree(PACKAGE, tmp_path / "ditto", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "ditto"


def digest(root):
    room._files_digest.cache_clear()
    return room._files_digest(root)


def edited(path, before, after):
    text = path.read_text()
    assert text.count(before) >= 1
    path.write_text(text.replace(before, after, 1))


SAME = {
    "a comment": ("targets/emit.py", "\n_DTYPES = {", "\n# TensorRT's names of types.\n_DTYPES = {"),
    "a docstring": ("targets/emit.py", '"""Add a weight as a constant', '"""Add any weight as a constant'),
    "layout": ("passes/partition.py", "\n\n\nclass Partitioner:", "\n\n\n\nclass Partitioner:"),
    "a message of the command line": ("cli/build.py", "reused from the old tree", "taken over"),
    "a lowering, which shows in the network": ("lowering/linear.py", "def ", "def another_"),
}
OTHER = {
    "emission": ("network/layers/shape.py", "to.net.add_shuffle(x)", "to.net.add_identity(x)"),
    "a weight": ("network/weight.py", "def resolve(", "def resolve(more, "),
    "the partition": ("passes/segments.py", "return ", "return not "),
    "builder settings": ("targets/compile.py", "BuilderFlag.TF32)", "BuilderFlag.FP16)"),
    "a plugin": ("targets/trtllm/plugins/gemm.py", "return ", "return not "),
    "checkpoint tensors": ("checkpoint/mapped.py", "return ", "return not "),
}


@pytest.mark.parametrize("name", SAME)
def test_what_changes_no_engine_changes_no_digest(package, name):
    path, before, after = SAME[name]
    old = digest(package)
    edited(package / path, before, after)
    assert digest(package) == old


@pytest.mark.parametrize("name", OTHER)
def test_what_changes_engines_changes_the_digest(package, name):
    path, before, after = OTHER[name]
    old = digest(package)
    edited(package / path, before, after)
    assert digest(package) != old


def test_every_layer_and_pass_behind_the_network_takes_part():
    names = {path.relative_to(PACKAGE).as_posix() for path in engine_modules(PACKAGE)}
    layers = {path.relative_to(PACKAGE).as_posix() for path in (PACKAGE / "network" / "layers").glob("*.py")}
    assert layers < names
    assert {"targets/emit.py", "targets/compile.py", "passes/partition.py", "passes/body.py"} < names
    assert not any(name.startswith(("passes/split_k", "targets/target", "lowering", "cli", "engine")) for name in names)


def test_targets_that_compile_differently_have_different_digests():
    assert code_digest(target("tensorrt-rtx")) == code_digest(target("tensorrt")) != code_digest(target("trtllm"))


def test_meaning_keeps_texts_that_are_values():
    assert meaning('def f():\n    """A."""\n    return "A."') == meaning('def f():\n    return "A."  # text')
    assert meaning('x = "A."') != meaning('x = "B."')
    assert meaning('def f():\n    """A."""') == meaning("def f():\n    pass")
