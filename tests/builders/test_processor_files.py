"""The processor's files are copied, and their settings read from whichever file holds them."""

from __future__ import annotations

import json

import pytest

from ditto.builders.processor_files import copy_files, image_settings
from ditto.errors import CheckpointError


def test_the_files_that_running_needs_are_copied(tmp_path):
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    for name in ("tokenizer.json", "chat_template.jinja", "model.safetensors", "config.json"):
        (checkpoint / name).write_text("{}")
    for name in ("qformer_tokenizer", "onnx"):
        (checkpoint / name).mkdir()
        (checkpoint / name / "tokenizer.json").write_text("{}")
    copy_files(checkpoint, tmp_path / "copy")
    copied = sorted(str(path.relative_to(tmp_path / "copy")) for path in (tmp_path / "copy").rglob("*.*"))
    assert copied == ["chat_template.jinja", "config.json", "qformer_tokenizer/tokenizer.json", "tokenizer.json"]


@pytest.mark.parametrize(
    "files",
    [
        {"preprocessor_config.json": {"max_patches": 4}},
        {"processor_config.json": {"image_processor": {"max_patches": 4}}},
        {"preprocessor_config.json": {"max_patches": 4}, "processor_config.json": {"image_processor": None}},
    ],
)
def test_settings_are_in_either_file(tmp_path, files):
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    assert image_settings(tmp_path)["max_patches"] == 4


def test_without_files_there_are_no_settings(tmp_path):
    assert image_settings(tmp_path) == {}
    (tmp_path / "preprocessor_config.json").write_text("[]")
    assert image_settings(tmp_path) == {}


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot read preprocessor_config.json"):
        image_settings(tmp_path)
