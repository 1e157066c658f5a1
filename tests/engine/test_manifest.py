"""The manifest says what a tree is; a damaged one is refused with all its faults."""

from __future__ import annotations

import json

import pytest

from ditto.engine.manifest import read_manifest, write_manifest
from ditto.errors import TreeError


def test_a_manifest_reads_back_as_it_was_written(llava_tree, tmp_path):
    write_manifest(llava_tree.manifest, tmp_path)
    assert read_manifest(tmp_path) == llava_tree.manifest


def test_a_directory_without_manifest_is_no_tree(tmp_path):
    with pytest.raises(TreeError, match="no engine tree here"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[1, 2"])
def test_a_manifest_that_is_no_json_is_refused(tmp_path, text):
    (tmp_path / "ditto.json").write_text(text)
    with pytest.raises(TreeError, match="cannot read the manifest"):
        read_manifest(tmp_path)


def test_a_manifest_of_another_format_is_refused(tmp_path):
    (tmp_path / "ditto.json").write_text('{"format": 99}')
    with pytest.raises(TreeError, match="has format 99, not 4"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({"llm": {"max_batch_size": 0}}, "max_batch_size is 0"),
        ({"llm": {"max_input_len": 64}}, "max_input_len 64 leaves no room for an answer in max_seq_len 64"),
        ({"llm": {"max_seq_len": None}}, "int"),
        ({"max_images": 0}, "max_images is 0"),
    ],
)
def test_limits_that_no_engine_has_are_refused(limits, told, llava_tree, tmp_path):
    write_manifest(llava_tree.manifest, tmp_path)
    data = json.loads((tmp_path / "ditto.json").read_text())
    stated = data["limits"]
    assert stated["max_images"] == 2 and stated["llm"]["max_seq_len"] == 64
    data["limits"] = {**stated, **limits, "llm": {**stated["llm"], **limits.get("llm", {})}}
    (tmp_path / "ditto.json").write_text(json.dumps(data))
    with pytest.raises(TreeError, match=rf"the manifest is damaged: .*{told}.* @ \$\.limits"):
        read_manifest(tmp_path)


def test_all_faults_of_a_manifest_are_named_with_their_paths(llava_tree, tmp_path):
    write_manifest(llava_tree.manifest, tmp_path)
    data = json.loads((tmp_path / "ditto.json").read_text())
    del data["target"]
    data["components"]["llm"]["inputs"] = 7
    data["surprise"] = True
    (tmp_path / "ditto.json").write_text(json.dumps(data))
    with pytest.raises(TreeError) as caught:
        read_manifest(tmp_path)
    for fault in ("target", "components", "inputs", "surprise"):
        assert fault in caught.value.cause
