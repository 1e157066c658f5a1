"""Random small LLaVAs: each is built and equals Hugging Face, or is refused with the reason."""

from __future__ import annotations

import pytest

from tests.support.drawn import drawn, llavas
from tests.support.holding import hold_all


@pytest.mark.parametrize(("part", "count"), [(0, 5), (1, 5), (2, 5), pytest.param(3, 110, marks=pytest.mark.slow)])
def test_each_equals_hugging_face_or_is_refused_with_the_reason(part, count, record_property, tmp_path):
    hold_all(drawn(llavas()), count, record_property, tmp_path, part)
