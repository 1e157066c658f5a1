"""A session is chosen by name."""

from __future__ import annotations

import pytest

from ditto.errors import ConfigError
from ditto.runtime import open_session


def test_without_a_gpu_the_reference_session_runs(llama_tree):
    assert open_session(llama_tree, "auto").name == "reference"


def test_an_unknown_session_is_refused(llama_tree):
    with pytest.raises(ConfigError, match="there is no session 'onnx'"):
        open_session(llama_tree, "onnx")
