"""Targets are complete, and independent of one another."""

from __future__ import annotations

import inspect

import pytest

from ditto.arguments import DynamicDimension
from ditto.configs import TARGETS
from ditto.configs.build import BuildSettings
from ditto.engine import Phase, Profile
from ditto.targets import Target, target
from tests.support.describing import vision_part
from tests.support.optimizing import LATENCY


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_implements_everything(name):
    assert not inspect.isabstract(type(target(name)))
    assert isinstance(target(name), Target)


IMAGES = DynamicDimension("images", 1, 2, 6)


@pytest.mark.parametrize("name", TARGETS)
def test_a_vision_engine_with_its_weights_inside_has_one_profile(name):
    (spec,) = target(name).specs(vision_part(IMAGES), BuildSettings())
    assert spec.profiles == (Profile(Phase.ENCODE, {"images": IMAGES}),)


def test_with_weights_outside_powers_of_two_and_the_largest_batch_have_static_shapes():
    (spec,) = target("tensorrt-rtx").specs(vision_part(IMAGES), LATENCY)
    assert [profile.phase for profile in spec.profiles] == [Phase.ENCODE] * 4
    for profile, count in zip(spec.profiles, (1, 2, 4, 6), strict=True):
        assert profile.ranges == {"images": DynamicDimension("images", count, count, count)}
