"""Trees open as what they are, and say what is wrong with them."""

from __future__ import annotations

import shutil

import pytest
from attrs import asdict, evolve

from ditto import EngineTree
from ditto.bench.plan import PREFILL, Task
from ditto.bench.roofline import Roofline
from ditto.engine import engine_files, record_files, write_manifest
from ditto.engine.manifest import Checkpoint
from ditto.errors import TreeError
from ditto.runtime import Request, generate, open_session
from ditto.runtime.inspection import inspect
from tests.support.models import llava


@pytest.fixture
def copy(llava_tree, tmp_path):
    shutil.copytree(llava_tree.root, tmp_path / "tree")
    return EngineTree.open(tmp_path / "tree")


def test_a_tree_has_the_layout_that_tensorrt_llm_expects(llava_tree):
    for name in ("vision/config.json", "vision/model.engine", "llm/config.json", "llm/rank0.engine", "ditto.json"):
        assert (llava_tree.root / name).is_file()
    assert llava_tree.directory("vision") == llava_tree.root / "vision"


def test_a_single_engine_lies_at_the_top(llama_tree):
    assert (llama_tree.root / "rank0.engine").is_file()
    assert llama_tree.directory("llm") == llama_tree.root


def test_every_file_is_recorded(copy):
    files = {path.relative_to(copy.root).as_posix() for path in copy.root.rglob("*") if path.is_file()}
    assert set(copy.manifest.files) == files - {"ditto.json"}
    copy.check()


@pytest.mark.parametrize("name", ["llm/rank0.engine", "vision/network.json"])
def test_a_missing_file_is_named(copy, name):
    (copy.root / name).unlink()
    with pytest.raises(TreeError, match=f"{name} is missing"):
        EngineTree.open(copy.root)


def test_a_truncated_file_is_named(copy):
    path = copy.root / "llm" / "rank0.engine"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(TreeError, match=r"llm/rank0.engine is not \d+ bytes long"):
        EngineTree.open(copy.root)


def test_one_changed_byte_is_noticed(copy):
    path = copy.root / "vision" / "model.engine"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(TreeError, match="vision/model.engine has changed since it was built"):
        EngineTree.open(copy.root)


def test_engines_built_one_at_a_time_open_as_one_tree(copy, llama_tree, tmp_path):
    (tmp_path / "joined").mkdir()
    shutil.copytree(llama_tree.root, tmp_path / "joined" / "llm")
    tree = EngineTree.open(tmp_path / "joined")
    assert tree.directory("llm") == tmp_path / "joined" / "llm"
    assert "llm/rank0.engine" in tree.manifest.files


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"checkpoint": Checkpoint(directory="elsewhere", identity="0" * 64)},
            "of vision and llm were built from different checkpoints: 000000000000 and 111111111111",
        ),
        ({"target": "trtllm"}, "of vision and llm were built for different targets: trtllm and tensorrt-rtx"),
        ({"library": "tensorrt_rtx 1.4.0"}, "of vision and llm were built by different libraries: tensorrt_rtx 1.4.0"),
    ],
)
def test_engines_that_do_not_belong_together_are_refused(llava_tree, tmp_path, changes, message):
    manifest = evolve(llava_tree.manifest, checkpoint=Checkpoint(directory="here", identity="1" * 64))
    for name in ("vision", "llm"):
        shutil.copytree(llava_tree.root, tmp_path / name)
        write_manifest(manifest, tmp_path / name)
    EngineTree.open(tmp_path)
    write_manifest(evolve(manifest, **changes), tmp_path / "vision")
    with pytest.raises(TreeError, match=message):
        EngineTree.open(tmp_path)


@pytest.mark.parametrize(
    ("component", "parts", "wanted"),
    [
        ("llm", 1, ["rank0.engine"]),
        ("llm", 3, ["rank0.engine", "rank0.part1.engine", "rank0.part2.engine"]),
        ("vision", 2, ["model.engine", "model.part1.engine"]),
    ],
)
def test_each_part_of_an_engine_has_a_file(component, parts, wanted):
    assert engine_files(component, parts) == wanted


def test_a_component_that_is_not_there_is_named(llama_tree):
    with pytest.raises(TreeError, match="has no vision engine, only llm"):
        llama_tree.component("vision")


def test_a_directory_that_is_not_there_is_named(tmp_path):
    with pytest.raises(TreeError, match="there is no such directory"):
        EngineTree.open(tmp_path / "nowhere")


def test_a_directory_that_cannot_be_read_is_named(llava_tree, monkeypatch):
    def refused(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.iterdir", refused)
    with pytest.raises(TreeError, match="cannot read the directory: Permission denied"):
        EngineTree.open(llava_tree.root)


def test_a_tree_is_shown_on_one_short_line(llava_tree):
    assert repr(llava_tree) == f"<EngineTree {str(llava_tree.root)!r}: llava for tensorrt-rtx, vision, llm>"


def test_the_manifest_has_hugging_faces_sizes_of_the_decoder(llava_tree):
    stated = llava().config.get_text_config()
    sizes = asdict(llava_tree.decoder)
    width = stated.hidden_size // stated.num_attention_heads
    assert sizes.pop("head_size") == (getattr(stated, "head_dim", None) or width)
    assert sizes == {name: getattr(stated, name) for name in sizes}


def test_config_json_is_for_tensorrt_llm_alone(copy):
    for name in ("vision", "llm"):
        (copy.root / name / "config.json").write_text("{}")
    write_manifest(evolve(copy.manifest, files=record_files(copy.root)), copy.root)
    tree = EngineTree.open(copy.root)
    assert inspect(tree).facts["num_key_value_heads"] == tree.decoder.num_key_value_heads
    assert Roofline(tree).of(Task(PREFILL, 1, 4, 1)).flops > 0
    assert generate(open_session(tree, "reference"), [Request((5, 7))], 2)
