"""TensorRT's settings check themselves and take no unknown names."""

from __future__ import annotations

import pytest

from ditto.configs import TensorRTBuilderConfig, TensorRTConfig, TensorRTNetworkCreationFlags
from ditto.errors import ConfigError


def test_the_seed_scripts_settings_are_accepted():
    config = TensorRTConfig(
        network_creation_flags=TensorRTNetworkCreationFlags(strongly_typed=False),
        builder_config=TensorRTBuilderConfig(fp16=True),
    )
    assert config.builder_config.fp16


def test_precision_flags_on_a_strongly_typed_network_are_refused():
    with pytest.raises(ConfigError, match="fp16/bf16 need a weakly typed network"):
        TensorRTConfig(builder_config=TensorRTBuilderConfig(fp16=True))


def test_two_precisions_are_refused():
    with pytest.raises(ConfigError, match="fp16 and bf16 are both set"):
        TensorRTBuilderConfig(fp16=True, bf16=True)


@pytest.mark.parametrize(
    "settings", [{"builder_optimization_level": 6}, {"max_aux_streams": -1}, {"workspace_bytes": -5}]
)
def test_values_out_of_range_are_refused(settings):
    (name,) = settings
    with pytest.raises(ConfigError, match=name):
        TensorRTBuilderConfig(**settings)


@pytest.mark.parametrize("cls", [TensorRTConfig, TensorRTBuilderConfig, TensorRTNetworkCreationFlags])
def test_unknown_names_are_errors(cls):
    with pytest.raises(TypeError, match="precision"):
        cls(precision="fp16")
