"""A session is chosen by name, or for what the machine has."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from ditto.errors import ConfigError, DeviceError
from ditto.runtime import open_session

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


@no_gpu
def test_without_a_gpu_the_reference_session_runs(llama_tree):
    assert open_session(llama_tree, "auto").name == "reference"


@no_gpu
def test_the_gpu_session_asked_for_by_name_says_what_is_missing(llama_tree):
    with pytest.raises(DeviceError, match="built without CUDA|no GPU"):
        open_session(llama_tree, "tensorrt")


def test_an_unknown_session_is_refused(llama_tree):
    with pytest.raises(ConfigError, match="there is no session 'onnx'") as caught:
        open_session(llama_tree, "onnx")
    assert "choose from auto, tensorrt, reference" in str(caught.value)


def test_running_a_tree_loads_nothing_that_building_needs():
    code = (
        "import sys, ditto.text.pipeline, ditto.bench.first, ditto.runtime.tensorrt\n"
        "print(sorted({'ditto.builders', 'ditto.capture', 'ditto.rewrite', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
