"""An engine is taken over exactly when everything that it was made from is unchanged."""

from __future__ import annotations

import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from ditto import EngineTree, LlmBuilder
from ditto.builders import engine_cache
from ditto.progress import recording
from tests.support.models import llama


@pytest.fixture
def model(tmp_path):
    llama(num_hidden_layers=3).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def stages(model, out, force=False, change=lambda builder: builder):
    builder = LlmBuilder.from_pretrained(str(model)).with_batch(2).with_target("tensorrt-rtx")
    with recording() as records:
        change(builder).build(out, force=force)
    return [record.name for record in records]


def test_an_unchanged_engine_is_taken_over(model, tmp_path):
    out = tmp_path / "tree"
    assert "compile" in stages(model, out)
    first = EngineTree.open(out).manifest
    made = (out / "rank0.engine").stat()
    again = stages(model, out)
    assert "reuse" in again and "compile" not in again
    second = EngineTree.open(out).manifest
    assert (out / "rank0.engine").stat().st_ino == made.st_ino
    assert second.files == first.files
    assert (second.library, second.components, second.unused) == (first.library, first.components, first.unused)
    assert "compile" in stages(model, out, force=True)
    assert (out / "rank0.engine").stat().st_ino != made.st_ino


def outside(builder):
    return builder.with_optimize("latency").with_tuning("9.0")


def test_an_unchanged_engine_in_parts_is_taken_over_whole(model, tmp_path):
    out = tmp_path / "tree"
    assert stages(model, out, change=outside).count("compile") == 2
    first = EngineTree.open(out).manifest
    files = [out / component.directory / name for component in first.components.values() for name in component.engines]
    assert [file.name for file in files] == [
        *("rank0.engine", *(f"rank0.{number}.engine" for number in range(1, 5))),
        *("rank0.engine", "rank0.1.engine", "rank0.2.engine"),
    ]
    made = [file.stat().st_ino for file in files]
    again = stages(model, out, change=outside)
    assert again.count("reuse") == 2 and "compile" not in again
    second = EngineTree.open(out)
    second.check()
    assert [file.stat().st_ino for file in files] == made
    assert (second.manifest.files, second.manifest.components) == (first.files, first.components)


@pytest.mark.parametrize("name", ["llm-decode/rank0.2.engine", "schedule.json"])
def test_of_a_tree_with_a_damaged_part_nothing_is_taken_over(model, tmp_path, name):
    out = tmp_path / "tree"
    stages(model, out, change=outside)
    damaged = (out / name).read_bytes()[::-1]
    (out / name).write_bytes(damaged)
    again = stages(model, out, change=outside)
    assert again.count("compile") == 2 and "reuse" not in again
    EngineTree.open(out).check()
    assert (out / name).read_bytes() != damaged


def edit_a_row(model):
    path = model / "model.safetensors"
    tensors = load_file(path)
    name = "model.embed_tokens.weight"
    assert tensors[name].numel() * 4 > 3 * 4096
    tensors[name].view(-1)[1500] += 1  # between the samples that the checkpoint's identity is made of
    save_file(tensors, path, {"format": "pt"})
    os.utime(path, ns=(1, 1))


CHANGES = {
    "a setting": ("spec", lambda model: None, lambda builder: builder.with_max_seq_len(32)),
    "the dtype": ("spec", lambda model: None, lambda builder: builder.with_dtype(torch.float16)),
    "a GPU": ("spec", lambda model: None, lambda builder: builder.with_compute_capabilities("8.9")),
    "external weights": ("spec", lambda model: None, lambda builder: builder.with_weights("external")),
    "a number of the checkpoint": ("checkpoint", edit_a_row, lambda builder: builder),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_changed_is_built_anew_and_said(model, tmp_path, name):
    from loguru import logger

    key, prepare, change = CHANGES[name]
    stages(model, tmp_path / "tree")
    prepare(model)
    said = []
    logger.enable("ditto")
    sink = logger.add(said.append, level="INFO", format="{message}")
    try:
        assert "compile" in stages(model, tmp_path / "tree", change=change)
    finally:
        logger.remove(sink)
        logger.disable("ditto")
    (line,) = [line for line in said if "built anew" in line]
    assert key in line


@pytest.mark.parametrize("what", ["code_digest", "_library_versions"])
def test_another_version_builds_anew(model, tmp_path, monkeypatch, what):
    stages(model, tmp_path / "tree")
    changed = {"_library_versions": lambda: {"tensorrt_rtx": "0"}, "code_digest": lambda target: "other"}
    monkeypatch.setattr(engine_cache, what, changed[what])
    assert "compile" in stages(model, tmp_path / "tree")


def test_a_damaged_engine_is_not_taken_over(model, tmp_path):
    out = tmp_path / "tree"
    stages(model, out)
    good = (out / "rank0.engine").read_bytes()
    (out / "rank0.engine").write_bytes(good[:1000] + bytes([good[1000] ^ 1]) + good[1001:])
    assert "compile" in stages(model, out)
    EngineTree.open(out).check()


def test_a_model_in_memory_is_always_built(tmp_path):
    builder = LlmBuilder.from_model(llama()).with_target("tensorrt-rtx")
    builder.build(tmp_path / "tree")
    with recording() as records:
        builder.build(tmp_path / "tree")
    assert "compile" in [record.name for record in records]
