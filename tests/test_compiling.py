"""A tree's engines are compiled later and elsewhere: all or none, from its files alone, without transformers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
from attrs import evolve

from ditto import EngineTree, LlmBuilder
from ditto.compiling import compile_tree
from ditto.configs import TrtllmConfig
from ditto.engine import record_files
from ditto.engine.manifest import NAME, read_manifest, write_manifest
from ditto.errors import CheckpointError, ConfigError, MissingLibraryError, TreeError
from ditto.network.schedule import load_schedule
from ditto.runtime.weights import weights_of
from tests.support.models import llama

# What `sys.meta_path` asks first: transformers is as good as not installed.
WITHOUT_TRANSFORMERS = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "transformers":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocker())
"""


def files(root):
    return {name: record.sha256 for name, record in record_files(root).items()} | {NAME: (root / NAME).read_text()}


def edit(root, **changes):
    """Change a manifest, its file records following."""
    write_manifest(evolve(read_manifest(root), **changes, files=record_files(root)), root)


def forget(root, *names):
    """Make a tree one whose engines are still to be compiled."""
    components = dict(read_manifest(root).components)
    for name in names:
        for engine in components[name].engine_files:
            (root / components[name].directory / engine).unlink()
        components[name] = evolve(components[name], engines=[])
    edit(root, components=components, library=None)


@pytest.fixture
def described(llava_tree, tmp_path):
    """A tree of networks for TensorRT-RTX, without its engines."""
    root = tmp_path / "tree"
    shutil.copytree(llava_tree.root, root)
    forget(root, "vision", "llm")
    return root


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A tree for TensorRT-LLM; not to be changed."""
    out = tmp_path_factory.mktemp("packed") / "tree"
    return LlmBuilder.from_model(llama()).with_batch(2).with_target("trtllm").build(out)


def test_compiling_later_gives_the_tree_that_a_build_gives(described, llava_tree):
    tree = compile_tree(described)
    for name, part in tree.manifest.components.items():
        assert part.engines == llava_tree.component(name).engines
        load_schedule(tree.checked(name, "schedule.json"), len(part.engine_files))
    assert tree.manifest.library == llava_tree.manifest.library
    assert [stage["name"] for stage in tree.manifest.stages][-2:] == ["compile", "compile"]
    assert set(tree.manifest.files) == set(llava_tree.manifest.files)
    EngineTree.open(described).check()


def test_engines_built_one_at_a_time_are_compiled_one_after_the_other(described, tmp_path, llama_tree):
    root = tmp_path / "pair"
    root.mkdir()
    shutil.copytree(llama_tree.root, root / "llm")
    forget(root / "llm", "llm")
    tree = compile_tree(root)
    assert tree.component("llm").engines == [["rank0.engine"]]
    assert (root / "llm" / "rank0.engine").stat().st_size > 0


def test_the_light_core_compiles_without_transformers(described):
    code = f"{WITHOUT_TRANSFORMERS}\nfrom ditto.cli.main import main\nsys.exit(main(['compile', {str(described)!r}]))"
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    assert EngineTree.open(described).component("llm").engines == [["rank0.engine"]]


def test_a_compiled_tree_is_left_alone(llava_tree):
    before = files(llava_tree.root)
    assert compile_tree(llava_tree.root).manifest == llava_tree.manifest
    assert files(llava_tree.root) == before


def test_of_two_engines_the_one_that_is_compiled_is_left_alone(tmp_path, llava_tree, llama_tree):
    for name, tree in {"vision": llava_tree, "llm": llama_tree}.items():
        shutil.copytree(tree.root, tmp_path / name)
    forget(tmp_path / "llm", "llm")
    before = files(tmp_path / "vision")
    assert all(part.engines for part in compile_tree(tmp_path).manifest.components.values())
    assert files(tmp_path / "vision") == before


def test_separate_prefill_and_decode_are_compiled_as_they_were_described(tmp_path):
    """Weights outside; each engine in the parts that its calls name."""
    root = tmp_path / "tree"
    built = (
        LlmBuilder.from_model(llama())
        .with_target("tensorrt-rtx")
        .with_optimize("latency")
        .with_tuning("9.0")
        .build(root)
    )
    assert set(built.manifest.components) == {"llm", "llm-decode"}
    forget(root, "llm", "llm-decode")
    tree = compile_tree(root)
    for name, part in tree.manifest.components.items():
        assert part == built.component(name)
        load_schedule(tree.checked(name, "schedule.json"), len(part.engine_files))


def test_a_tree_that_is_divided_otherwise_is_refused(described):
    path = described / "vision" / "schedule.json"
    data = json.loads(path.read_text())
    data["calls"][0]["part"] = 1
    path.write_text(json.dumps(data))
    edit(described)
    before = files(described)
    with pytest.raises(TreeError, match="divided otherwise"):
        compile_tree(described)
    assert files(described) == before


def test_a_tree_compiled_by_half_is_named(llava_tree, tmp_path):
    root = tmp_path / "tree"
    shutil.copytree(llava_tree.root, root)
    forget(root, "llm")
    before = files(root)
    with pytest.raises(TreeError, match="only a part of the tree is compiled: vision"):
        compile_tree(root)
    assert files(root) == before


def test_a_failure_in_the_second_engine_leaves_the_tree_as_it_was(described, monkeypatch):
    def weights_of_the_first(tree, name):
        if name == "llm":
            raise CheckpointError("the disk fails")
        return weights_of(tree, name)

    monkeypatch.setattr("ditto.compiling.weights_of", weights_of_the_first)
    before = files(described)
    with pytest.raises(CheckpointError, match="the disk fails"):
        compile_tree(described)
    assert files(described) == before


def test_settings_of_another_ditto_are_named(described):
    settings = read_manifest(described).settings
    edit(described, settings={**settings, "trtllm": {"colour": "blue"}})
    with pytest.raises(TreeError, match="colour"):
        compile_tree(described)


def test_a_machine_without_tensorrt_llm_says_so(packed):
    before = files(packed.root)
    with pytest.raises(MissingLibraryError, match="engines for trtllm cannot be compiled here") as caught:
        compile_tree(packed.root)
    assert f"ditto compile {packed.root}" in str(caught.value)
    assert files(packed.root) == before


def test_a_tree_of_an_unknown_version_is_named(packed, tmp_path):
    root = tmp_path / "tree"
    shutil.copytree(packed.root, root)
    settings = read_manifest(root).settings
    edit(root, settings={**settings, "trtllm": {**settings["trtllm"], "version": "7.0.0"}})
    with pytest.raises(ConfigError, match=r"TensorRT-LLM 7\.0\.0 is not known"):
        compile_tree(root)


def test_the_tree_remembers_what_it_is_for(packed):
    assert packed.manifest.settings["trtllm"] == {
        "version": TrtllmConfig().version,
        "tokens_per_block": 32,
        "gemm_plugin": True,
        "use_paged_context_fmha": True,
    }
    assert packed.component("llm").engines == [] and packed.manifest.library is None
