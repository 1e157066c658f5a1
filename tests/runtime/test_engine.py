"""Engines are read by TensorRT itself, from a mapped file; what it says is passed on."""

from __future__ import annotations

from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch

from ditto.bindings import TensorRT, load_native
from ditto.errors import DeviceError
from ditto.runtime.engine import Engine


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU the engine loads")
def test_without_a_gpu_the_message_is_that_of_tensorrt(llama_tree):
    path = llama_tree.root / "rank0.engine"
    with pytest.raises(DeviceError, match=r"TensorRT-RTX [\d.]+ does not load the engine on this GPU: .") as caught:
        Engine(load_native("tensorrt_rtx"), path)
    assert caught.value.where == str(path)
    assert "--compute-capability" in str(caught.value.remedy)


class Cuda:
    """A tensor on a GPU that is not there."""

    is_cuda = True

    def __init__(self, *shape):
        self.shape = shape

    def is_contiguous(self):
        return True

    def data_ptr(self):
        return 4096

    def numel(self):
        return 1


class Compiling:
    """Stands in for TensorRT-RTX: every shape that is new to it is one more kernel in its cache."""

    asked = 0

    def __init__(self):
        self.kernels = set()

    def __getattr__(self, name):
        return lambda *_: self

    def get_tensor_mode(self, name):
        return "input"

    def set_input_shape(self, name, shape):
        self.kernels.add((name, shape))
        return True

    def serialize(self):
        Compiling.asked += 1
        return b"k" * len(self.kernels)


def compiling(monkeypatch, tmp_path):
    """An engine of it whose kernels are kept in a file, and that file."""
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=0))
    (tmp_path / "engine").write_bytes(b"engine")
    module = MagicMock()
    module.Runtime.return_value = Compiling()
    module.TensorIOMode.INPUT = "input"
    module.ILogger = load_native("tensorrt_rtx").module.ILogger
    engine = Engine(TensorRT("tensorrt_rtx", module, "1.6.1"), tmp_path / "engine", tmp_path / "kernels" / "engine.bin")
    return engine, tmp_path / "kernels" / "engine.bin"


def test_kernels_are_kept_when_there_are_new_shapes(monkeypatch, tmp_path):
    engine, file = compiling(monkeypatch, tmp_path)
    engine.keep_kernels()
    assert not file.exists()
    execution = engine.execution(0, Cuda(1), eager=True)
    execution.bind({"x": Cuda(1, 4)})
    engine.keep_kernels()
    assert file.read_bytes() == b"k"
    asked = Compiling.asked
    execution.bind({"x": Cuda(1, 4)})
    engine.execution(0, Cuda(1), eager=True).bind({"x": Cuda(1, 4)})
    engine.keep_kernels()
    assert Compiling.asked == asked, "asked for without need"
    execution.bind({"x": Cuda(2, 4)})
    engine.keep_kernels()
    assert file.read_bytes() == b"kk"
