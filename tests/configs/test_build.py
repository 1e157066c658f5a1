"""Build settings: the defaults are those of a portable engine."""

from __future__ import annotations

from ditto.configs import TensorRTConfig
from ditto.configs.build import BuildSettings


def test_the_defaults_are_portable():
    assert BuildSettings() == BuildSettings(weights="embedded", tensorrt=TensorRTConfig(), compute_capabilities=())
