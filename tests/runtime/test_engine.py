"""Engines are read by TensorRT itself, from a mapped file; what it says is passed on."""

from __future__ import annotations

from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch

from ditto.bindings import TensorRT, load_native
from ditto.errors import DeviceError
from ditto.runtime.engine import Engine
from ditto.runtime.runtime_cache import RuntimeCache


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU the engine loads")
def test_without_a_gpu_the_message_is_that_of_tensorrt(llama_tree):
    path = llama_tree.root / "rank0.engine"
    with pytest.raises(DeviceError, match=r"TensorRT-RTX [\d.]+ does not load the engine on this GPU: .") as caught:
        Engine(load_native("tensorrt_rtx"), path, RuntimeCache(None))
    assert caught.value.where == str(path)
    assert "--compute-capability" in str(caught.value.remedy)


SCRATCH = torch.empty(4, dtype=torch.uint8)


class Compiling:
    """Stands in for TensorRT-RTX: every shape that is new to it is one more kernel in its cache."""

    asked = 0

    def __init__(self):
        self.kernels = set()

    def __getattr__(self, name):
        return lambda *_: self

    def set_input_shape(self, name, shape):
        self.kernels.add((name, shape))
        return True

    def serialize(self):
        Compiling.asked += 1
        return b"k" * len(self.kernels)


def loaded(monkeypatch, tmp_path, runtime):
    """An engine of a stand-in for TensorRT-RTX, and its kernels."""
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=0))
    (tmp_path / "engine").write_bytes(b"engine")
    module = MagicMock()
    module.Runtime.return_value = runtime
    module.TensorIOMode.INPUT = "input"
    module.ILogger = load_native("tensorrt_rtx").module.ILogger
    kernels = RuntimeCache(tmp_path / "kernels" / "engine.bin")
    return Engine(TensorRT("tensorrt_rtx", module, "1.6.1"), tmp_path / "engine", kernels), kernels


def test_kernels_are_kept_when_there_are_new_shapes(monkeypatch, tmp_path):
    (engine, kernels), file = loaded(monkeypatch, tmp_path, Compiling()), tmp_path / "kernels" / "engine.bin"
    kernels.keep()
    assert not file.exists()
    context = engine.context(0, SCRATCH, eager=True)
    context.take("x", (1, 4))
    kernels.keep()
    assert file.read_bytes() == b"k"
    asked = Compiling.asked
    context.take("x", (1, 4))
    engine.context(0, SCRATCH, eager=True).take("x", (1, 4))
    kernels.keep()
    assert Compiling.asked == asked, "asked for without need"
    context.take("x", (2, 4))
    kernels.keep()
    assert file.read_bytes() == b"kk"


class Noting:
    """Stands in for TensorRT: notes what a context is told, and takes no batch above 4, no address of 0, no run without
    an address."""

    num_io_tensors = 3
    device_memory_size_v2 = 640

    def __init__(self):
        self.told = []

    def __getattr__(self, name):
        return lambda *arguments: self.noted(name, *arguments)

    def noted(self, name, *arguments):
        self.told.append((name, *arguments))
        return self

    def get_tensor_name(self, index):
        return ("x", "w", "y")[index]

    def get_tensor_mode(self, name):
        return "output" if name == "y" else "input"

    def set_input_shape(self, name, shape):
        return self.noted("shape", name, shape) and shape[0] <= 4

    def set_tensor_address(self, name, address):
        return self.noted("address", name, address) and address != 0

    def execute_async_v3(self, stream):
        return any(event[0] == "address" for event in self.told) and self.noted("run", stream)

    def serialize(self):
        return b""

    @property
    def runs(self):
        """Shapes, addresses and runs."""
        return [event for event in self.told if event[0] in ("shape", "address", "run")]


@pytest.fixture
def noting():
    return Noting()


def test_an_engine_knows_its_inputs_and_what_it_works_in(monkeypatch, tmp_path, noting):
    engine, _ = loaded(monkeypatch, tmp_path, noting)
    assert (engine.inputs, engine.scratch_bytes) == (("x", "w"), 640)


def test_a_context_is_on_its_profile_and_works_in_the_memory_it_is_given(monkeypatch, tmp_path, noting):
    engine, _ = loaded(monkeypatch, tmp_path, noting)
    engine.context(2, SCRATCH, eager=False)
    assert ("set_optimization_profile_async", 2, 0) in noting.told
    assert ("set_device_memory", SCRATCH.data_ptr(), 4) in noting.told


def test_tensorrt_is_told_of_new_shapes_and_addresses_only(monkeypatch, tmp_path, noting):
    context = loaded(monkeypatch, tmp_path, noting)[0].context(0, SCRATCH, eager=True)
    for rows, address in ((1, 256), (1, 256), (2, 256), (2, 512)):
        context.take("x", (rows, 8))
        context.place("x", address)
        context.enqueue()
    assert noting.runs == [
        ("shape", "x", (1, 8)),
        ("address", "x", 256),
        ("run", 0),
        ("run", 0),
        ("shape", "x", (2, 8)),
        ("run", 0),
        ("address", "x", 512),
        ("run", 0),
    ]


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda context: context.take("x", (5, 8)), r"the engine does not take x as \[5, 8\]: "),
        (lambda context: context.place("y", 0), "the engine does not take an address for y: "),
        (lambda context: context.enqueue(), "the engine failed: "),
    ],
)
def test_what_tensorrt_refuses_is_an_error_with_its_reason(monkeypatch, tmp_path, noting, ask, message):
    engine, _ = loaded(monkeypatch, tmp_path, noting)
    context = engine.context(0, SCRATCH, eager=True)
    with pytest.raises(DeviceError, match=message) as caught:
        ask(context)
    assert caught.value.where == str(tmp_path / "engine")


def test_a_refused_shape_is_asked_for_again(monkeypatch, tmp_path, noting):
    context = loaded(monkeypatch, tmp_path, noting)[0].context(0, SCRATCH, eager=True)
    for _ in range(2):
        with pytest.raises(DeviceError):
            context.take("x", (5, 8))
    assert len(noting.runs) == 2
