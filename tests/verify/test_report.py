"""The verdict is that of its parts, as a table and as JSON."""

from __future__ import annotations

import json

import pytest
from attrs import evolve

from ditto.verify.divergence import Divergence
from ditto.verify.report import Difference, Measure, Verification

LOGITS = Measure("logits", 1e-6, 2e-6, "prompt 1, token 2", 0.1, 0.0, 1e-5)
GOOD = Verification("out", "model", "reference", "float32", (LOGITS,), 12, ())
TIE = Difference(2, 3, 40, 41, 1e-4, tie=True)


def test_a_pass():
    assert GOOD.passed
    assert GOOD.text().splitlines()[-1] == "passed"
    assert "12 compared, all as Hugging Face's   ok" in GOOD.text()


@pytest.mark.parametrize(
    "bad",
    [
        evolve(GOOD, measures=(evolve(LOGITS, relative_error=2e-5),)),
        evolve(GOOD, differences=(evolve(TIE, tie=False),)),
    ],
)
def test_a_failure(bad):
    assert not bad.passed
    assert bad.text().splitlines()[-1] == "FAILED"
    assert "FAIL" in bad.text().splitlines()[3] + bad.text().splitlines()[4]
    assert json.loads(json.dumps(bad.to_json()))["passed"] is False


def test_a_tie_is_shown_and_no_failure():
    result = evolve(GOOD, differences=(TIE,))
    assert result.passed
    assert "prompt 2, token 3: 41 for 40, 1.00e-04 apart for Hugging Face: a tie" in result.text()


def test_a_divergence_is_shown():
    layer = Divergence(
        "llm", "model.norm.5", "ElementWise", "model.norm", "llama.py:60", "the output of `model.norm`", 1, 0
    )
    text = evolve(GOOD, divergences=(layer,), compared=5).text()
    assert "first diverging layer of llm: ElementWise %model.norm.5" in text
    assert "in model.norm (llama.py:60): the output of `model.norm`" in text


@pytest.mark.parametrize(
    ("wanted", "found", "told"),
    [
        (-1, 7, "Hugging Face's answer has ended, the tree's goes on with 7"),
        (7, -1, "the tree's answer has ended, Hugging Face's goes on with 7"),
    ],
)
def test_an_answer_that_ends_sooner_is_told(wanted, found, told):
    result = evolve(GOOD, differences=(Difference(2, 3, wanted, found, None, tie=False),))
    assert f"  prompt 2, token 3: {told}" in result.text().splitlines()


def test_json_knows_no_infinities():
    result = evolve(GOOD, measures=(evolve(LOGITS, relative_error=float("nan"), max_error=float("inf")),))
    made = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert made["measures"][0]["relative_error"] is made["measures"][0]["max_error"] is None
    assert made["passed"] is False
