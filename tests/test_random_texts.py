"""Random small text models: each is built and equals Hugging Face, or is refused with the reason."""

from __future__ import annotations

import pytest

from tests.support.drawn import drawn, texts
from tests.support.holding import hold_all


@pytest.mark.parametrize(("part", "count"), [(0, 8), (1, 8), (2, 8), pytest.param(3, 200, marks=pytest.mark.slow)])
def test_each_equals_hugging_face_or_is_refused_with_the_reason(part, count, record_property, tmp_path):
    hold_all(drawn(texts(40)), count, record_property, tmp_path, part)
