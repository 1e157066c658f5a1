"""Headers of GGUF files say what the format's own library says; damaged and other files are refused."""

from __future__ import annotations

import pytest

from ditto.checkpoint import CheckpointIndex
from ditto.checkpoint.gguf import gguf_file, read_header
from ditto.errors import CheckpointError
from tests.support import gguf


@pytest.mark.parametrize("kind", ["F32", "BF16", "Q8_0", "Q4_0", "Q4_1"])
def test_tensors_lie_where_the_library_says(tmp_path, kind):
    from gguf import GGUFReader

    file = gguf.write(tmp_path / "a.gguf", kind)
    wanted = {
        tensor.name: (tensor.tensor_type.name, tuple(tensor.shape.tolist())[::-1], tensor.data_offset, tensor.n_bytes)
        for tensor in GGUFReader(str(file)).tensors
    }
    found = read_header(file)
    assert {n: (t.kind.name, t.shape, t.start, t.stop - t.start) for n, t in found.tensors.items()} == wanted
    assert found.metadata["llama.rope.freq_base"] == 50000.0
    assert found.metadata["tokenizer.ggml.merges"] == ["a b", "c d", "e f", "g h"]


@pytest.mark.parametrize("kind", ["Q5_0", "Q5_1", "Q4_K"])
def test_other_kinds_are_refused_by_name(tmp_path, kind):
    from gguf import GGMLQuantizationType

    file = gguf.write(tmp_path / "a.gguf", "Q8_0")
    content, name = bytearray(file.read_bytes()), b"blk.0.attn_q.weight"
    place = content.index(name) + len(name) + 4 + 2 * 8
    assert content[place] == GGMLQuantizationType.Q8_0
    content[place] = GGMLQuantizationType[kind]
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"`blk.0.attn_q.weight` is {kind}, which is not read"):
        read_header(file)


@pytest.mark.parametrize("length", [0, 3, 8, 20, 100, 700, -1])
def test_a_file_that_ends_early_is_damaged(tmp_path, length):
    file = gguf.write(tmp_path / "a.gguf", "Q4_0")
    content = file.read_bytes()
    stop = max(tensor.stop for tensor in read_header(file).tensors.values())
    file.write_bytes(content[:length] if length >= 0 else content[: stop - 1])
    with pytest.raises(CheckpointError, match="the GGUF file is damaged"):
        read_header(file)


def test_a_file_of_several_is_refused(tmp_path):
    from gguf import GGUFWriter

    writer = GGUFWriter(str(tmp_path / "a.gguf"), "llama")
    writer.add_uint16("split.count", 3)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(CheckpointError, match="is one of 3"):
        read_header(tmp_path / "a.gguf")


def test_the_only_file_of_a_directory_is_meant(tmp_path):
    (tmp_path / "a.gguf").write_bytes(b"")
    assert gguf_file(tmp_path) == gguf_file(tmp_path / "a.gguf") == (tmp_path / "a.gguf").resolve()
    (tmp_path / "b.gguf").write_bytes(b"")
    with pytest.raises(CheckpointError, match="has 2 GGUF files: a.gguf, b.gguf"):
        gguf_file(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert gguf_file(tmp_path) is None


def test_other_values_are_another_identity(tmp_path):
    file = gguf.write(tmp_path / "a.gguf", "Q4_1")
    before, content = CheckpointIndex.open(file).identity, bytearray(file.read_bytes())
    content[read_header(file).tensors["blk.0.ffn_up.weight"].start] ^= 1
    file.write_bytes(content)
    assert CheckpointIndex.open(file).identity != before
