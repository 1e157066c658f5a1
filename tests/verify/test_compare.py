"""Errors are those of PyTorch's norms, the worst item is named, and a tie is a gap that the allowed error can close."""

from __future__ import annotations

import pytest
import torch

from ditto.verify.compare import Trio, difference, measure, worst_prompt
from ditto.verify.reference_outputs import ReferenceOutputs
from ditto.verify.report import Difference


def test_errors_over_all_and_of_the_worst():
    torch.manual_seed(0)
    exact = torch.randn(3, 50)
    found = exact.clone()
    found[1] *= 1.01
    own = exact * 1.002
    made = measure(
        "logits",
        [Trio(1, "token", exact, exact, exact), Trio(2, "token", found, exact, own)],
        2e-3,
    )
    both = torch.cat([exact, exact])
    wanted = torch.linalg.vector_norm(torch.cat([exact, found]) - both) / torch.linalg.vector_norm(both)
    assert made.relative_error == pytest.approx(float(wanted), rel=1e-4)
    assert made.worst_relative_error == pytest.approx(0.01, rel=1e-4)
    assert made.worst_at == "prompt 2, token 2"
    assert made.max_error == pytest.approx(float((found - exact).abs().max()))
    assert made.own_error == pytest.approx(0.002 / 2**0.5, rel=1e-3)
    assert made.allowed == pytest.approx(1.5 * made.own_error)
    assert not made.passed


def test_the_tolerance_is_always_allowed():
    exact = torch.ones(2, 4)
    assert measure("features", [Trio(1, "image", exact * 1.0019, exact, exact)], 2e-3).passed
    assert not measure("features", [Trio(1, "image", exact * 1.0019, exact, exact)], 1e-5).passed


def reference_outputs(*tokens):
    logits = torch.zeros(len(tokens), 8)
    for row, token in enumerate(tokens):
        logits[row, token] = 1.0
    logits[:, 7] = 0.99
    return ReferenceOutputs(None, logits, tokens)


def test_the_same_tokens_do_not_differ():
    assert difference(1, reference_outputs(3, 4), [3, 4], 1e-5) is None


def test_the_first_wrong_token_counts():
    found = difference(2, reference_outputs(3, 4, 5), [3, 1, 1], 1e-3)
    assert (found.prompt, found.position, found.wanted, found.found) == (2, 2, 4, 1)
    assert found.gap == pytest.approx(1.0)
    assert not found.tie


def test_a_tie_is_within_what_is_allowed():
    assert difference(1, reference_outputs(3), [7], 1e-2).tie
    assert not difference(1, reference_outputs(3), [7], 1e-3).tie


def test_a_token_that_hugging_face_does_not_prefer_is_no_tie():
    """What was wanted is less likely, by its own logits, than what was found: the numbers do not say why."""
    logits = torch.zeros(1, 8)
    logits[0, 6] = 1.0
    found = difference(1, ReferenceOutputs(None, logits, (3,)), [6], 1e-2)
    assert found.gap == pytest.approx(-1.0)
    assert not found.tie


def test_what_is_no_number_is_the_worst():
    exact = torch.ones(3, 4)
    found = exact * torch.tensor([[1.5], [float("nan")], [2.0]])
    made = measure("logits", [Trio(1, "token", found, exact, exact)], 1e-5)
    assert made.worst_at == "prompt 1, token 2"
    assert not made.passed


@pytest.mark.parametrize(("factors", "worst"), [([1.0, 1.5, 1.1], 2), ([1.5, 1.0, float("nan")], 3)])
def test_the_prompt_that_is_farthest_off_is_looked_at(factors, worst):
    exact = torch.ones(1, 4)
    right = [Trio(number, "image", exact, exact, exact) for number in (1, 2, 3)]
    trios = [Trio(number, "token", exact * factor, exact, exact) for number, factor in enumerate(factors, 1)]
    measured = [(measure(name, each, 1e-5), each) for name, each in (("f", right), ("l", trios))]
    assert worst_prompt(measured, []) == worst


def test_with_numbers_as_they_should_be_the_first_wrong_token_is_looked_at():
    exact = torch.ones(1, 4)
    right = [Trio(1, "token", exact, exact, exact)]
    tie, wrong = Difference(2, 1, 3, 4, 1e-9, tie=True), Difference(3, 1, 3, 4, 1.0, tie=False)
    assert worst_prompt([(measure("l", right, 1e-5), right)], [tie, wrong]) == 3


@pytest.mark.parametrize("tokens", [[3], [3, 4, 5]])
def test_an_answer_of_another_length_differs(tokens):
    found = difference(1, reference_outputs(3, 4), tokens, 1.0)
    assert found.position == min(len(tokens), 2) + 1
    assert found.gap is None
    assert not found.tie
