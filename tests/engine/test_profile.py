"""Profiles say what they are for, and survive the manifest."""

from __future__ import annotations

import pytest
from cattrs import Converter
from cattrs.errors import BaseValidationError

from ditto.arguments import DynamicDimension
from ditto.engine import Phase, Profile
from ditto.engine.profile import register_hooks
from ditto.errors import ConfigError
from ditto.strict import strict_converter

PROFILE = Profile(
    Phase.DECODE, {"batch": DynamicDimension("batch", 4, 4, 4), "kv_length": DynamicDimension("kv_length", 1, 2, 9)}
)


def test_a_size_is_known_where_there_is_only_one():
    assert [PROFILE.size(name) for name in ("batch", "kv_length", "sequence")] == [4, None, None]


def test_a_label_has_the_phase_and_the_fixed_sizes():
    assert PROFILE.label() == "decode batch=4"


@pytest.fixture
def converter():
    converter = Converter(forbid_extra_keys=True)
    register_hooks(converter)
    return converter


def test_a_profile_is_written_as_ranges_and_read_again(converter):
    data = converter.unstructure(PROFILE)
    assert data == {"phase": "decode", "ranges": {"batch": [4, 4, 4], "kv_length": [1, 2, 9]}}
    assert converter.structure(data, Profile) == PROFILE


@pytest.mark.parametrize(
    "damaged", [{"phase": "dream", "ranges": {}}, {"phase": "decode", "ranges": {"batch": [4, 2, 4]}}, {"ranges": {}}]
)
def test_a_damaged_profile_is_not_read(converter, damaged):
    with pytest.raises(Exception):  # noqa: B017 - the manifest turns any of them into a TreeError
        converter.structure(damaged, Profile)


@pytest.mark.parametrize(
    "data",
    [
        7,
        [],
        {"phase": "prefill"},
        {"phase": "prefill", "ranges": {}, "more": 1},
        {"phase": "lunch", "ranges": {}},
        {"phase": [], "ranges": {}},
        {"phase": "prefill", "ranges": {"batch": "123"}},
        {"phase": "prefill", "ranges": {"batch": [1, 2]}},
        {"phase": "prefill", "ranges": {"batch": [0, 1, 2]}},
        {"phase": "prefill", "ranges": {"batch": [3, 2, 1]}},
        {"phase": "prefill", "ranges": {"batch": [1, 2.0, 3]}},
        {"phase": "prefill", "ranges": {"a batch": [1, 2, 3]}},
    ],
)
def test_what_is_not_a_profile_is_refused(data):
    converter = strict_converter()
    register_hooks(converter)
    with pytest.raises((ConfigError, ValueError, TypeError, BaseValidationError)):
        converter.structure(data, Profile)
