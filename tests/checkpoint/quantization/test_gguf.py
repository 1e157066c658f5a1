"""Blocks of GGUF mean what the format's own library says."""

from __future__ import annotations

import pytest
import torch

from ditto.checkpoint import CheckpointIndex, CheckpointReader
from ditto.checkpoint.gguf import read_header
from ditto.checkpoint.quantization.gguf import gguf_groups
from ditto.errors import CheckpointError
from ditto.network import Literals, resolve
from tests.support import gguf


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_1"])
def test_blocks_are_dequantised_as_by_the_library(tmp_path, kind):
    from gguf import GGUFReader, dequantize

    file = gguf.write(tmp_path / "a.gguf", kind)
    tensors, reader = read_header(file).tensors, CheckpointReader(CheckpointIndex.open(file))
    groups = gguf_groups(tensors, {name: name for name in tensors}, {}, str(file))
    for tensor in GGUFReader(str(file)).tensors:
        found = resolve(groups[tensor.name].matrix(torch.float32), reader, Literals())
        assert torch.equal(found, torch.from_numpy(dequantize(tensor.data.copy(), tensor.tensor_type))), tensor.name


def test_a_tensor_without_a_place_is_refused(tmp_path):
    tensors = read_header(gguf.write(tmp_path / "a.gguf", "Q4_0")).tensors
    names = {name: name for name in tensors if name != "output.weight"}
    with pytest.raises(CheckpointError, match=r"1 tensors have no place in the model .*`output.weight`"):
        gguf_groups(tensors, names, {}, "a.gguf")


def test_rows_that_are_not_whole_heads_are_refused(tmp_path):
    tensors = read_header(gguf.write(tmp_path / "a.gguf", "Q4_0")).tensors
    with pytest.raises(CheckpointError, match=r"`blk.0.attn_k.weight` has 32 rows, and the model 3 heads"):
        gguf_groups(tensors, {name: name for name in tensors}, {"blk.0.attn_k.weight": 3}, "a.gguf")
