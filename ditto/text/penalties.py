"""Penalties and biases that one answer asks for, beside the model's own defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor

from ditto.errors import ConfigError

_MOST_BIAS = 100
_MOST_PENALTY = 2
_LEAST_REPETITION, _MOST_REPETITION = 0.01, 100


@frozen(kw_only=True)
class Penalties:
    """Penalties and biases of an answer; they change the logits before temperature, `top_k` and `top_p`.

    Args:
        repetition_penalty: 0.01 to 100, divides positive logits of tokens of prompt and answer, and multiplies negative
            ones, as in Hugging Face's `generate`; None for the model's own.
        frequency_penalty: -2 to 2, is subtracted from the logit of a token as often as the answer has it already.
        presence_penalty: -2 to 2, is subtracted once from the logit of each token that the answer has already.
        logit_bias: -100 to 100 by token id, is added to the logits before the penalties.
        min_tokens: number of new tokens before an end token may come, as `min_new_tokens` in Hugging Face's `generate`;
            None for the model's own. Stop strings end an answer all the same.
    Raises:
        ConfigError: a value is out of range, or of another kind.
    """

    repetition_penalty: float | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(factory=dict)
    min_tokens: int | None = None

    def __attrs_post_init__(self) -> None:
        if self.repetition_penalty is not None:
            _check("repetition_penalty", self.repetition_penalty, _LEAST_REPETITION, _MOST_REPETITION)
        _check("frequency_penalty", self.frequency_penalty, -_MOST_PENALTY, _MOST_PENALTY)
        _check("presence_penalty", self.presence_penalty, -_MOST_PENALTY, _MOST_PENALTY)
        for token, bias in self.logit_bias.items():
            if isinstance(token, bool) or not isinstance(token, int) or token < 0:
                raise ConfigError(f"the key {token!r} of logit_bias is no token id", remedy="give whole numbers from 0")
            _check(f"logit_bias of token {token}", bias, -_MOST_BIAS, _MOST_BIAS)
        least = self.min_tokens
        if least is not None and (isinstance(least, bool) or not isinstance(least, int) or least < 0):
            raise ConfigError(f"the value {least!r} of min_tokens is no whole number from 0", remedy="change it")

    @property
    def settings(self) -> dict[str, Any]:
        """What Hugging Face's `generate` has too, by its names."""
        given = {
            "repetition_penalty": None if self.repetition_penalty is None else float(self.repetition_penalty),
            "min_new_tokens": self.min_tokens,
        }
        return {name: value for name, value in given.items() if value is not None}

    @property
    def counts(self) -> bool:
        """Whether a penalty depends on how often the answer has a token."""
        return self.frequency_penalty != 0 or self.presence_penalty != 0

    def check(self, new_tokens: int, vocab_size: int) -> None:
        """Check them against the answer's limit and the model's vocabulary.

        Raises:
            ConfigError: they do not fit.
        """
        if self.min_tokens is not None and self.min_tokens > new_tokens:
            raise ConfigError(
                f"the answer is to have {self.min_tokens} tokens at least, and {new_tokens} at most",
                remedy="lower min_tokens, or allow more new tokens",
            )
        wrong = [token for token in self.logit_bias if token >= vocab_size]
        if wrong:
            raise ConfigError(
                f"logit_bias has token {wrong[0]}; the model's tokens go from 0 to {vocab_size - 1}",
                remedy="use the ids of the model's own tokenizer",
            )

    def biased(self, logits: Tensor) -> Tensor:
        """Logits [V] with the biases."""
        if not self.logit_bias:
            return logits
        places = torch.tensor(list(self.logit_bias))
        return logits.index_add(0, places, torch.tensor([float(bias) for bias in self.logit_bias.values()]))

    def counted(self, answer: Tensor, logits: Tensor) -> Tensor:
        """Logits [V] after frequency and presence penalty.

        Args:
            answer: int64 [S], its tokens so far.
        Source: OpenAI's formula, which subtracts count x frequency penalty and, if the count is above 0, the presence
            penalty.
        """
        count = torch.bincount(answer, minlength=len(logits))
        return logits - count * self.frequency_penalty - (count > 0) * self.presence_penalty


def _check(name: str, value: Any, least: float, most: float) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not least <= value <= most:
        shown = repr(value) if len(repr(value)) < 40 else "given"
        raise ConfigError(f"the value {shown} of {name} is not a number from {least} to {most}", remedy="change it")


NO_PENALTIES = Penalties()
