"""Sampling has the distribution that Hugging Face's warpers give, exactly; and repeats by seed."""

from __future__ import annotations

import pytest
import torch
from transformers.generation.logits_process import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from ditto import LlmBuilder
from ditto.errors import ConfigError
from ditto.runtime import Batch, Request, Sampling, generate, open_session
from ditto.runtime.sampling import GREEDY, candidates, choose
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
    draws = (torch.arange(count) + 0.5) / count
    for row, wanted in zip(logits, warped(logits, sampling), strict=True):
        chosen = choose(row.expand(count, -1), sampling, draws)
        shares = torch.bincount(chosen, minlength=len(row)) / count
        assert (shares - wanted).abs().max() <= 2 / count


def test_the_largest_number_stays_within_the_candidates(logits):
    draw = torch.full((3,), 1.0 - 2**-24)
    sampling = Sampling(top_p=0.5)
    probabilities = warped(logits, sampling)
    chosen = choose(logits, sampling, draw)
    assert (probabilities.gather(-1, chosen[:, None]) > 0).all()


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
    with Batch(session, 1, Sampling(temperature=3.0, seed=1)) as batch:
        flights = [batch.join(request, 12) for request in requests]
        while batch.busy:
            batch.step()
    assert [tuple(flight.made) for flight in flights] == made(3, 1)
