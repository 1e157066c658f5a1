"""TensorRT comes in through one door, which knows its versions."""

from __future__ import annotations

import sys
import types

import pytest

from ditto.bindings import TensorRT, is_installed, load, load_native, load_plugins, plugins_version
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
    assert "pip install 'ditto-trt[tensorrt]'" in str(caught.value)


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


@pytest.mark.skipif(is_installed("tensorrt_llm"), reason="TensorRT-LLM is installed")
def test_missing_plugins_come_with_the_line_that_installs_them():
    assert plugins_version() is None
    with pytest.raises(MissingLibraryError, match="TensorRT-LLM is not installed") as caught:
        load_plugins()
    assert "pip install 'ditto-trt[trtllm]'" in str(caught.value)


@pytest.mark.skipif(is_installed("tensorrt_llm"), reason="TensorRT-LLM is installed")
@pytest.mark.parametrize("content", [None, b"no library"])
def test_a_plugin_library_that_does_not_load_is_named(content, tmp_path, monkeypatch):
    """Packages after TensorRT's and TensorRT-LLM's own layout."""
    (tmp_path / "tensorrt.py").write_text("__version__ = '10.9.0'")
    libraries = tmp_path / "tensorrt_llm" / "libs"
    libraries.mkdir(parents=True)
    (tmp_path / "tensorrt_llm" / "__init__.py").write_text("raise AssertionError('it is not to be imported')")
    if content is not None:
        (libraries / "libnvinfer_plugin_tensorrt_llm.so").write_bytes(content)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(MissingLibraryError, match="TensorRT-LLM's plugin library does not load"):
        load_plugins()
    sys.modules.pop("tensorrt", None)
