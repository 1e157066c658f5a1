"""Refusals of a rewrite or pass are told by reason."""

from __future__ import annotations

from ditto.errors import Place
from ditto.refusals import Refusal, refusal_lines


def test_a_reason_is_told_once_with_its_first_place():
    first, second = Place("layers.0", "model.py:7"), Place("layers.1", "model.py:7")
    refused = [Refusal(first, "too wide"), Refusal(Place(), "too long"), Refusal(second, "too wide")]
    assert refusal_lines(refused) == [
        "refused 2 times, first at layers.0 (model.py:7): too wide",
        "refused 1 times: too long",
    ]
    assert refusal_lines([]) == []
