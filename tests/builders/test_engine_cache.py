"""An engine is taken over exactly when everything that it was made from is unchanged."""

from __future__ import annotations

import os
import shutil

import pytest
import torch
from loguru import logger
from safetensors.torch import load_file, save_file

from ditto import EngineTree, LlmBuilder
from ditto.builders import engine_cache
from ditto.progress import recording
from tests.support.models import llama
from tests.support.optimizing import latency


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A checkpoint; not to be changed."""
    directory = tmp_path_factory.mktemp("engine cache") / "model"
    llama(num_hidden_layers=3).save_pretrained(directory)
    return directory


def stages(model, out, force=False, change=lambda builder: builder):
    builder = LlmBuilder.from_pretrained(str(model)).with_batch(2).with_target("tensorrt-rtx")
    with recording() as records:
        change(builder).build(out, force=force)
    return [record.name for record in records]


@pytest.fixture(scope="module")
def first_builds(model):
    """Its trees as one engine, and as prefill and decode in parts."""
    trees = {"whole": model.with_name("whole"), "parts": model.with_name("parts")}
    assert stages(model, trees["whole"]).count("compile") == 1
    assert stages(model, trees["parts"], change=latency).count("compile") == 2
    return trees


@pytest.fixture
def out(first_builds, tmp_path):
    """A copy of the tree of one engine."""
    return shutil.copytree(first_builds["whole"], tmp_path / "tree")


@pytest.fixture
def out_in_parts(first_builds, tmp_path):
    """A copy of the tree in parts."""
    return shutil.copytree(first_builds["parts"], tmp_path / "tree")


def test_an_unchanged_engine_is_taken_over(model, out):
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


def test_an_unchanged_engine_in_parts_is_taken_over_whole(model, out_in_parts):
    out = out_in_parts
    first = EngineTree.open(out).manifest
    files = [out / part.directory / name for part in first.components.values() for name in part.engine_files]
    assert [file.name for file in files] == [
        *("rank0.engine", *(f"rank0.part{number}.engine" for number in range(1, 5))),
        *("rank0.engine", "rank0.part1.engine", "rank0.part2.engine"),
    ]
    made = [file.stat().st_ino for file in files]
    again = stages(model, out, change=latency)
    assert again.count("reuse") == 2 and "compile" not in again
    second = EngineTree.open(out)
    second.check()
    assert [file.stat().st_ino for file in files] == made
    assert (second.manifest.files, second.manifest.components) == (first.files, first.components)


@pytest.mark.parametrize("name", ["llm-decode/rank0.part2.engine", "schedule.json"])
def test_of_a_tree_with_a_damaged_part_nothing_is_taken_over(model, out_in_parts, name):
    out = out_in_parts
    damaged = (out / name).read_bytes()[::-1]
    (out / name).write_bytes(damaged)
    again = stages(model, out, change=latency)
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


def reason(model, out, change=lambda builder: builder):
    """Build anew, and return the message that says why."""
    lines = []
    logger.enable("ditto")
    sink = logger.add(lines.append, level="INFO", format="{message}")
    try:
        assert "compile" in stages(model, out, change=change)
    finally:
        logger.remove(sink)
        logger.disable("ditto")
    (line,) = [line for line in lines if "built anew" in line]
    return line


CHANGES = {
    "a setting": lambda builder: builder.with_max_seq_len(32),
    "the dtype": lambda builder: builder.with_dtype(torch.float16),
    "a GPU": lambda builder: builder.with_compute_capabilities("8.9"),
    "external weights": lambda builder: builder.with_weights("external"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_changed_is_built_anew_and_said(model, out, name):
    assert "spec" in reason(model, out, CHANGES[name])


def test_another_number_in_the_checkpoint_is_built_anew_and_said(model, out, tmp_path):
    model = shutil.copytree(model, tmp_path / "model")
    assert "compile" not in stages(model, out)
    edit_a_row(model)
    assert "checkpoint" in reason(model, out)


@pytest.mark.parametrize("what", ["code_digest", "_library_versions"])
def test_another_version_builds_anew(model, out, monkeypatch, what):
    changed = {"_library_versions": lambda: {"tensorrt_rtx": "0"}, "code_digest": lambda target: "other"}
    monkeypatch.setattr(engine_cache, what, changed[what])
    assert "compile" in stages(model, out)


def test_a_damaged_engine_is_not_taken_over(model, out):
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
