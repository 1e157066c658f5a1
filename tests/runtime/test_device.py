"""What keeps a machine from running a tree's engines is said in one message."""

from __future__ import annotations

import pytest
import torch
from attrs import evolve

from ditto import EngineTree
from ditto.errors import DeviceError, MissingLibraryError
from ditto.runtime.device import check_capability, library_for, this_gpu

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


def with_library(tree, library, target="tensorrt-rtx"):
    return EngineTree(tree.root, evolve(tree.manifest, library=library, target=target))


@no_gpu
def test_without_a_gpu_the_reason_is_named(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(DeviceError, match=r"torch .* is built without CUDA") as caught:
        this_gpu()
    assert "run with --session reference" in str(caught.value)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(DeviceError, match="there is no GPU that torch can use") as caught:
        this_gpu()
    assert "nvidia-smi" in str(caught.value)


def test_too_old_a_gpu_is_named():
    with pytest.raises(DeviceError, match=r"Tesla V100 has compute capability 7\.0, TensorRT needs 7\.5"):
        check_capability((7, 0), "Tesla V100")
    check_capability((7, 5), "Tesla T4")
    check_capability((12, 0), "RTX 5090")


def test_the_library_of_the_build_is_found(llama_tree):
    import tensorrt_rtx

    found = library_for(llama_tree)
    assert (found.module, found.version) == (tensorrt_rtx, tensorrt_rtx.__version__)


@pytest.mark.parametrize(
    ("library", "target", "message", "hint"),
    [
        (None, "tensorrt-rtx", "the tree's engines are not compiled yet", "--session reference"),
        (
            "tensorrt_rtx 1.4.0.76",
            "tensorrt-rtx",
            r"the engines are of tensorrt_rtx 1\.4\.0\.76, TensorRT-RTX [\d.]+ is installed",
            "build the tree again, or pip install 'tensorrt_rtx_cu12==1.4.0.76'",
        ),
        (
            "tensorrt_llm 0.19.0",
            "trtllm",
            "engines of target trtllm are run by tensorrt_llm, not by this session",
            "build with --target tensorrt-rtx",
        ),
    ],
)
def test_engines_that_cannot_be_loaded_here_are_named(llama_tree, library, target, message, hint):
    with pytest.raises(DeviceError, match=message) as caught:
        library_for(with_library(llama_tree, library, target))
    assert hint in str(caught.value)


def test_a_missing_library_is_named(llama_tree):
    with pytest.raises(MissingLibraryError, match="TensorRT is not installed"):
        library_for(with_library(llama_tree, "tensorrt 10.15.0", "tensorrt"))
