"""Targets are complete, and independent of one another."""

from __future__ import annotations

import inspect

import pytest

from ditto.arguments import DynamicDimension
from ditto.configs import TARGETS
from ditto.targets import Profile, Target, target


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_implements_everything(name):
    assert not inspect.isabstract(type(target(name)))
    assert isinstance(target(name), Target)


@pytest.mark.parametrize("name", TARGETS)
def test_a_vision_engine_has_one_profile(name):
    images = DynamicDimension("images", 1, 2, 4)
    assert target(name).vision_profiles([images]) == (Profile("vision", {"images": images}),)
