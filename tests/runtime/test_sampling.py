"""Sampling has the distribution that Hugging Face's warpers give, exactly; and repeats by seed."""

from __future__ import annotations

import pytest
import torch
from transformers.generation.logits_process import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from ditto import LlmBuilder
from ditto.errors import ConfigError, ModelError
from ditto.runtime import Batch, Request, Sampling, generate, open_session
from ditto.runtime.sampling import GREEDY, candidates, choose
from ditto.runtime.session import LlmRunner
from tests.support.models import llama

SETTINGS = [
    Sampling(),
    Sampling(temperature=0.3),
    Sampling(temperature=2.5),
    Sampling(top_k=1),
    Sampling(top_k=7, temperature=1.7),
    Sampling(top_p=0.6),
    Sampling(top_p=1e-6),
    Sampling(temperature=0.8, top_k=20, top_p=0.9),
    Sampling(top_k=1000),
]


def warped(logits, sampling):
    """Probabilities as Hugging Face's sampling makes them."""
    made = TemperatureLogitsWarper(sampling.temperature)(None, logits) if sampling.temperature != 1 else logits
    if sampling.top_k:
        made = TopKLogitsWarper(sampling.top_k)(None, made)
    if sampling.top_p < 1:
        made = TopPLogitsWarper(sampling.top_p)(None, made)
    return made.softmax(-1)


@pytest.fixture
def logits():
    return torch.randn(3, 60, generator=torch.Generator().manual_seed(0)) * 3


@pytest.mark.parametrize("sampling", SETTINGS, ids=str)
def test_probabilities_are_those_of_hugging_face(sampling, logits):
    probabilities, tokens = candidates(logits, sampling)
    found = torch.zeros_like(logits).scatter(-1, tokens, probabilities)
    assert torch.allclose(found, warped(logits, sampling), atol=1e-6)


@pytest.mark.parametrize("sampling", SETTINGS, ids=str)
def test_evenly_spread_numbers_give_every_token_its_share(sampling, logits):
    count = 4000
    uniforms = (torch.arange(count) + 0.5) / count
    for row, wanted in zip(logits, warped(logits, sampling), strict=True):
        sampled = choose(row.expand(count, -1), sampling, uniforms)
        shares = torch.bincount(sampled, minlength=len(row)) / count
        assert (shares - wanted).abs().max() <= 2 / count


def test_the_largest_number_stays_within_the_candidates(logits):
    uniform = torch.full((3,), 1.0 - 2**-24)
    sampling = Sampling(top_p=0.5)
    probabilities = warped(logits, sampling)
    sampled = choose(logits, sampling, uniform)
    assert (probabilities.gather(-1, sampled[:, None]) > 0).all()


def test_greedy_takes_the_most_likely(logits):
    assert torch.equal(choose(logits, GREEDY, None), logits.argmax(-1))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"temperature": -0.1}, "temperature -0.1 is out of range"),
        ({"top_k": -1}, "top-k -1 is out of range"),
        ({"top_p": 0.0}, "top-p 0.0 is out of range"),
        ({"top_p": 1.1}, "top-p 1.1 is out of range"),
        ({"seed": -1}, "seed -1 is out of range"),
        ({"temperature": float("nan")}, "temperature nan is out of range"),
    ],
)
def test_settings_out_of_range_are_refused(setting, message):
    with pytest.raises(ConfigError, match=message) as caught:
        Sampling(**setting)
    assert "top-p is above 0 and at most 1" in str(caught.value)


def test_a_seed_repeats_and_a_request_does_not_depend_on_those_beside_it(tmp_path):
    tree = LlmBuilder.from_model(llama()).with_batch(3).with_target("tensorrt-rtx").build(tmp_path / "tree")
    session = open_session(tree, "reference")
    requests = [Request((5, 9, 17)), Request((77, 3)), Request((64,) * 5)]

    def made(count, seed):
        sampling = Sampling(temperature=3.0, seed=seed)
        return [answer.ids for answer in generate(session, requests[:count], 12, sampling)]

    assert made(3, 1) == made(3, 1)
    assert made(1, 1) == made(3, 1)[:1]
    assert made(3, 2) != made(3, 1)
    with Batch(session, 1) as batch:
        sequences = [batch.join(request, 12, Sampling(temperature=3.0, seed=1)) for request in requests]
        while batch.busy:
            batch.step()
    assert [tuple(sequence.made) for sequence in sequences] == made(3, 1)


@pytest.mark.parametrize("temperature", [1e-8, 1e-30, 1e-44, 1e-300, 5e-324])
@pytest.mark.parametrize("more", [{}, {"top_k": 5}, {"top_p": 0.9}, {"top_k": 10**6, "top_p": 1e-9}], ids=str)
@pytest.mark.parametrize("scale", [1.0, 1e4, 1e30])
def test_the_limit_of_small_temperatures_is_greedy(logits, temperature, more, scale):
    sampling = Sampling(temperature=temperature, **more)
    for uniform in (0.0, 0.5, 1 - 2**-24):
        sampled = choose(logits * scale, sampling, torch.full((len(logits),), uniform))
        assert torch.equal(sampled, logits.argmax(-1))


def test_tokens_as_likely_share_a_small_temperature():
    probabilities, tokens = candidates(torch.tensor([[1.0, 3.0, -2.0, 3.0]]), Sampling(temperature=1e-40))
    assert probabilities[0, :2].tolist() == [0.5, 0.5]
    assert set(tokens[0, :2].tolist()) == {1, 3}


@pytest.mark.parametrize("temperature", [1e30, 1e200, 1.7e308])
def test_the_limit_of_large_temperatures_is_all_tokens_alike_but_excluded_ones(temperature):
    probabilities, tokens = candidates(torch.tensor([[1.0, -torch.inf, 9.0]]), Sampling(temperature=temperature))
    assert probabilities[0].tolist() == [0.5, 0.5, 0.0]
    assert tokens[0, 2] == 1


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, "all excluded"])
@pytest.mark.parametrize("more", [{}, {"top_k": 5}, {"top_p": 0.9}], ids=str)
def test_rows_that_cannot_be_sampled_are_marked_and_others_are_not(logits, wrong, more):
    broken = logits.clone()
    broken[1, 3 if isinstance(wrong, float) else slice(None)] = wrong if isinstance(wrong, float) else -torch.inf
    uniform = torch.full((len(logits),), 0.3)
    with pytest.raises(RuntimeError):  # as in Hugging Face
        torch.multinomial(broken[1].softmax(-1), 1)
    wanted = choose(logits, Sampling(**more), uniform)
    wanted[1] = -1
    assert torch.equal(choose(broken, Sampling(**more), uniform), wanted)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_rows_without_a_most_likely_token_are_marked(logits, value):
    """Hugging Face takes the largest of infinite logits as of others."""
    broken = logits.clone()
    broken[1, 3] = value
    wanted = broken.argmax(-1)
    wanted[1] = -1 if value != value else wanted[1]
    assert torch.equal(choose(broken, GREEDY, None), wanted)


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(seed=1)], ids=["greedy", "sampled"])
@pytest.mark.parametrize("lookahead", [0, 2])
def test_logits_without_a_choice_end_the_run_with_their_prompt(lookahead, sampling, tmp_path, monkeypatch):
    tree = LlmBuilder.from_model(llama()).with_batch(2).with_target("trtllm").build(tmp_path / "tree")
    session = open_session(tree, "reference")
    start = session.start
    monkeypatch.setattr(LlmRunner, "lookahead", lookahead)

    def broken(rows):
        runner = start(rows)
        step = runner.step

        def wrong(scheduled, sampled):
            assert (sampled >= 0).all()
            logits = step(scheduled, sampled)
            logits[[each.row == 1 and each.past >= 4 for each in scheduled]] = torch.nan
            return logits

        runner.step = wrong
        return runner

    session.start = broken
    with pytest.raises(ModelError, match="The logits of prompt 2 are not finite numbers.* new token 3") as caught:
        generate(session, [Request((5, 9, 17)), Request((77, 3, 4))], 6, sampling)
    assert caught.value.exit_code == 1
