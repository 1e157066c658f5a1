"""Every name that is offered is a target."""

from __future__ import annotations

import pytest

from ditto.configs import TARGETS
from ditto.errors import DittoError
from ditto.targets import target


@pytest.mark.parametrize("name", TARGETS)
def test_every_name_is_a_target(name):
    assert target(name).name == name


def test_another_name_is_refused():
    with pytest.raises(DittoError, match="there is no target 'onnx'"):
        target("onnx")
