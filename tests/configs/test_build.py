"""Build settings are independent; presets are named sets of them."""

from __future__ import annotations

import pytest
from attrs import fields

from ditto.configs import TensorRTConfig
from ditto.configs.build import CHOICES, PRESETS, BuildSettings, checked_choice, refuse_settings
from ditto.errors import ConfigError


def test_the_defaults_are_portable():
    assert BuildSettings() == BuildSettings(**PRESETS["portable"], tensorrt=TensorRTConfig(), compute_capabilities=())


def test_presets_state_the_same_settings_with_values_that_exist():
    known = {each.name for each in fields(BuildSettings)}
    for preset in PRESETS.values():
        assert [*preset] == ["weights", "engines", "profiles", "tuning"] and preset.keys() <= known
        assert all(preset[name] in values for name, values in CHOICES.items())
        assert preset["tuning"] in ("none", "auto")


def test_an_unknown_value_is_refused_with_those_that_exist():
    assert checked_choice("engines", "separate") == "separate"
    for setting, values in {**CHOICES, "optimize": tuple(PRESETS)}.items():
        with pytest.raises(ConfigError, match=f"'fast' is not a value of {setting}") as caught:
            checked_choice(setting, "fast")
        assert ", ".join(values) in str(caught.value)


def test_what_a_target_does_not_support_is_named():
    refuse_settings(BuildSettings(), "trtllm", {"engines": ("combined",)})
    with pytest.raises(ConfigError, match="target trtllm does not support engines separate") as caught:
        refuse_settings(BuildSettings(engines="separate"), "trtllm", {"engines": ("combined",)})
    assert "--engines combined" in str(caught.value)


def test_settings_are_told_on_one_line():
    assert BuildSettings().text() == "weights embedded, engines combined, profiles dynamic, tuning none"
