"""Penalties are OpenAI's formula; what is out of range is one clear error."""

from __future__ import annotations

import math

import pytest
import torch

from ditto.errors import ConfigError
from ditto.text.penalties import NO_PENALTIES, Penalties


def test_penalties_count_the_tokens_of_the_answer():
    logits = torch.tensor([1.0, -1.0, 0.5, 2.0])
    penalties = Penalties(frequency_penalty=0.5, presence_penalty=0.25)
    found = penalties.counted(torch.tensor([1, 3, 1, 1]), logits)
    assert found.tolist() == [1.0, -1.0 - 3 * 0.5 - 0.25, 0.5, 2.0 - 0.5 - 0.25]
    assert penalties.counted(torch.tensor([], dtype=torch.int64), logits).tolist() == logits.tolist()


def test_biases_are_added():
    logits = torch.tensor([1.0, -1.0, -torch.inf])
    assert Penalties(logit_bias={2: 100, 0: -1.5}).biased(logits).tolist() == [-0.5, -1.0, -torch.inf]
    assert logits.tolist() == [1.0, -1.0, -math.inf]
    assert NO_PENALTIES.biased(logits) is logits


@pytest.mark.parametrize(
    ("given", "message"),
    [
        *(({"repetition_penalty": value}, "of repetition_penalty is not") for value in (0, -1.0, 101, math.nan, "1")),
        *(({"frequency_penalty": value}, "of frequency_penalty is not") for value in (-2.1, 10**400, True, None)),
        ({"presence_penalty": math.inf}, "inf of presence_penalty is not a number from -2 to 2"),
        ({"logit_bias": {5: math.nan}}, "nan of logit_bias of token 5"),
        ({"logit_bias": {5: "1"}}, "'1' of logit_bias of token 5"),
        ({"logit_bias": {-1: 0}}, "key -1 of logit_bias"),
        ({"logit_bias": {"1": 0}}, "key '1' of logit_bias"),
        ({"logit_bias": {True: 0}}, "key True of logit_bias"),
        *(({"min_tokens": value}, "of min_tokens is no whole number") for value in (-1, 1.0, True)),
    ],
)
def test_what_is_out_of_range_is_refused(given, message):
    with pytest.raises(ConfigError, match=message) as caught:
        Penalties(**given)
    assert caught.value.remedy


def test_what_does_not_fit_the_model_is_refused():
    Penalties(min_tokens=4, logit_bias={9: 1}).check(4, 10)
    with pytest.raises(ConfigError, match="5 tokens at least, and 4 at most"):
        Penalties(min_tokens=5).check(4, 10)
    with pytest.raises(ConfigError, match="token 10; the model's tokens go from 0 to 9"):
        Penalties(logit_bias={10: 1}).check(4, 10)
