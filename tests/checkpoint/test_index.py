"""Headers say what a checkpoint holds; whatever is wrong with them is said in one message."""

from __future__ import annotations

import json
import struct

import pytest
import torch
from safetensors.torch import save_file

from ditto.checkpoint import CheckpointIndex
from ditto.errors import CheckpointError

TENSORS = {"a.weight": torch.arange(6, dtype=torch.float16).reshape(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}


@pytest.fixture
def directory(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors")
    return tmp_path


@pytest.fixture
def sharded(tmp_path):
    for name, tensor in TENSORS.items():
        save_file({name: tensor}, tmp_path / f"{name}.safetensors")
    index = {"metadata": {}, "weight_map": {name: f"{name}.safetensors" for name in TENSORS}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    return tmp_path


def rewrite_header(path, change):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


@pytest.mark.parametrize("kind", ["directory", "sharded"])
def test_shapes_and_dtypes_come_from_the_headers(kind, request):
    index = CheckpointIndex.open(request.getfixturevalue(kind))
    assert {name: (record.shape, record.dtype) for name, record in index.tensors.items()} == {
        name: (tuple(tensor.shape), tensor.dtype) for name, tensor in TENSORS.items()
    }
    assert index.data_bytes == 12 + 8


def test_identity_is_of_the_content_and_not_of_the_place(directory, tmp_path_factory):
    other = tmp_path_factory.mktemp("copy")
    save_file(TENSORS, other / "model.safetensors")
    assert CheckpointIndex.open(other).identity == CheckpointIndex.open(directory).identity
    save_file({**TENSORS, "b": TENSORS["b"] + 1}, other / "model.safetensors")
    assert CheckpointIndex.open(other).identity != CheckpointIndex.open(directory).identity


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="no such checkpoint directory") as caught:
        CheckpointIndex.open(tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in str(caught.value)


def test_a_directory_without_weights_says_what_is_missing(tmp_path):
    with pytest.raises(CheckpointError, match="no model.safetensors and no model.safetensors.index.json"):
        CheckpointIndex.open(tmp_path)


def test_pickled_weights_are_not_read(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(CheckpointError, match=r"pytorch_model.bin is not read, only safetensors are"):
        CheckpointIndex.open(tmp_path)


def test_a_missing_shard_is_named(sharded):
    (sharded / "b.safetensors").unlink()
    with pytest.raises(CheckpointError, match="names the shard b.safetensors, which is not there"):
        CheckpointIndex.open(sharded)


def test_a_tensor_that_no_shard_holds_is_named(sharded):
    save_file({"other": torch.ones(1)}, sharded / "b.safetensors")
    with pytest.raises(CheckpointError, match="names 1 tensors that no shard holds, e.g. `b`"):
        CheckpointIndex.open(sharded)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"weight_map": 3}', '{"weight_map": {"a": "../a.safetensors"}}'])
def test_a_damaged_index_is_refused(sharded, text):
    (sharded / "model.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match="cannot read the index"):
        CheckpointIndex.open(sharded)


@pytest.mark.parametrize(
    ("keep", "reason"), [(3, "ends within its first 8 bytes"), (20, "header would be longer"), (-1, "is truncated")]
)
def test_a_truncated_shard_is_refused(directory, keep, reason):
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=reason) as caught:
        CheckpointIndex.open(directory)
    assert "model.safetensors" in str(caught.value)
    assert "download the checkpoint again" in str(caught.value)


def test_a_header_that_is_no_json_is_refused(directory):
    path = directory / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[8] = ord("?")
    path.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match="header is not JSON"):
        CheckpointIndex.open(directory)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda header: header["b"].update(shape=[5]), "contradicts itself"),
        (lambda header: header["b"].update(data_offsets=[8, 2]), "contradicts itself"),
        (lambda header: header["b"].pop("shape"), "damaged header entry"),
        (lambda header: header["b"].update(shape="wide"), "damaged header entry"),
    ],
)
def test_a_header_entry_that_cannot_be_right_is_refused(directory, change, reason):
    rewrite_header(directory / "model.safetensors", change)
    with pytest.raises(CheckpointError, match=reason) as caught:
        CheckpointIndex.open(directory)
    assert "tensor `b`" in str(caught.value)


@pytest.mark.parametrize(
    ("dtype", "told"),
    [("F4", "F4, a quantised form"), ("F6_E2M3", "a quantised form"), ("Q8", "Q8, which is not known")],
)
def test_a_dtype_that_is_not_read_is_no_damage(directory, dtype, told):
    rewrite_header(directory / "model.safetensors", lambda header: header["b"].update(dtype=dtype))
    with pytest.raises(CheckpointError, match=told) as caught:
        CheckpointIndex.open(directory)
    assert "`b`" in str(caught.value)
    assert "download" not in str(caught.value)


@pytest.mark.parametrize("name", ["model.gguf", "model.fp16.safetensors", "pytorch_model.bin", "tf_model.h5"])
def test_weights_of_another_form_are_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(CheckpointError, match="is not read") as caught:
        CheckpointIndex.open(tmp_path)
    assert "download" not in str(caught.value)
