"""Targets come by name."""

from __future__ import annotations

import pytest

from ditto.bindings import is_installed
from ditto.configs import TrtllmConfig
from ditto.errors import ConfigError
from ditto.targets import target


@pytest.mark.parametrize(("name", "library"), [("tensorrt-rtx", "tensorrt_rtx"), ("tensorrt", "tensorrt")])
def test_a_plugin_free_target_knows_its_library(name, library):
    made = target(name)
    assert (made.name, made.library) == (name, library)


@pytest.mark.skipif(is_installed("tensorrt") or is_installed("tensorrt_llm"), reason="another library comes first")
def test_auto_takes_what_is_installed():
    assert target("auto").name == "tensorrt-rtx"


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ConfigError, match="there is no target 'onnx'") as caught:
        target("onnx")
    assert "choose from auto, trtllm, tensorrt, tensorrt-rtx" in str(caught.value)


def test_the_packed_target_takes_its_choices_along():
    options = TrtllmConfig(version="0.20.0", tokens_per_block=64)
    assert target("trtllm", options).options == options
    assert target("trtllm").options == TrtllmConfig()
