"""Tensors come from the shards' memory maps, bit for bit."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from ditto.checkpoint import CheckpointIndex, CheckpointReader
from ditto.checkpoint.mapped import MappedFile
from ditto.errors import CheckpointError


@pytest.fixture
def reader(tmp_path):
    torch.manual_seed(0)
    tensors = {
        "half": torch.randn(5, 7).half(),
        "brain": torch.randn(3).bfloat16(),
        "whole": torch.arange(4),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 4),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    made = CheckpointReader(CheckpointIndex.open(tmp_path))
    made.wanted = tensors
    return made


def test_tensors_are_what_was_saved(reader):
    for name, wanted in reader.wanted.items():
        found = reader.tensor(name)
        assert found.dtype == wanted.dtype
        assert torch.equal(found, wanted)


def test_tensors_survive_a_release(reader):
    before = reader.tensor("half")
    reader.release()
    assert torch.equal(before, reader.wanted["half"])


def test_two_views_of_a_tensor_share_memory(reader):
    assert reader.tensor("half").data_ptr() == reader.tensor("half").data_ptr()


def test_a_tensor_that_is_not_there_is_named(reader):
    with pytest.raises(CheckpointError, match="has no tensor `other`"):
        reader.tensor("other")


def test_what_nobody_asked_for_is_known(reader):
    reader.tensor("half")
    assert reader.unused() == ["brain", "empty", "scalar", "whole"]


def test_tensors_can_be_asked_for_while_pages_are_let_go_of(tmp_path, monkeypatch):
    """Another thread may be at it."""
    for name in ("first", "second"):
        save_file({name: torch.ones(2)}, tmp_path / f"{name}.safetensors")
    files = [tmp_path / "first.safetensors", tmp_path / "second.safetensors"]
    reader = CheckpointReader(CheckpointIndex.of_files(tmp_path, files))
    reader.tensor("first")
    monkeypatch.setattr(MappedFile, "release", lambda file: reader.tensor("second"))
    reader.release()
