"""TensorRT comes in through one door, which knows its versions."""

from __future__ import annotations

import types

import pytest

from ditto.bindings import TensorRT, is_installed, load, load_native
from ditto.errors import MissingLibraryError


def test_tensorrt_rtx_is_loaded_with_its_version():
    trt = load_native("tensorrt_rtx")
    assert trt.title == f"TensorRT-RTX {trt.module.__version__}"
    assert trt.numbers >= (1, 4)
    assert not trt.is_weakly_typed


@pytest.mark.skipif(is_installed("tensorrt"), reason="TensorRT is installed")
def test_a_missing_library_comes_with_the_line_that_installs_it():
    with pytest.raises(MissingLibraryError, match=r"TensorRT is not installed") as caught:
        load("tensorrt")
    assert "pip install 'ditto[tensorrt]'" in str(caught.value)


@pytest.mark.parametrize(
    ("library", "version", "native", "weak"),
    [
        ("tensorrt", "10.9.0.34", False, True),
        ("tensorrt", "10.15.1", True, True),
        ("tensorrt", "11.0.0", True, False),
        ("tensorrt_rtx", "1.3.0", False, False),
        ("tensorrt_rtx", "1.4.0.76", True, False),
    ],
)
def test_versions_decide_what_a_library_has(library, version, native, weak):
    trt = TensorRT(library, types.ModuleType(library), version)
    assert trt.has_native_layers is native
    assert trt.is_weakly_typed is weak
