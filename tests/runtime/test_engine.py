"""Engines are read by TensorRT itself, from a mapped file; what it says is passed on."""

from __future__ import annotations

import pytest
import torch

from ditto.bindings import load_native
from ditto.errors import DeviceError
from ditto.runtime.engine import Engine


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU the engine loads")
def test_without_a_gpu_the_message_is_that_of_tensorrt(llama_tree):
    path = llama_tree.root / "rank0.engine"
    with pytest.raises(DeviceError, match=r"TensorRT-RTX [\d.]+ does not load the engine on this GPU: .") as caught:
        Engine(load_native("tensorrt_rtx"), path)
    assert caught.value.where == str(path)
    assert "--compute-capability" in str(caught.value.remedy)
