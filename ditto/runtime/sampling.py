"""Choice of the next token from logits, on the device of the logits.

B rows, V vocabulary, K candidates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from attrs import field, frozen
from torch import Tensor

from ditto.errors import ConfigError

# Maps a request's new tokens so far and the next token's logits, float32 [V] on the CPU, to new logits, float32 [V].
LogitsProcessor = Callable[[Sequence[int], Tensor], Tensor]

# Temperatures beyond these have no further effect; neither they nor their reciprocals overflow float32.
_COLDEST, _HOTTEST = 1e-37, 1e37


@frozen(kw_only=True)
class Sampling:
    """Sampling settings, with the same meaning as in Hugging Face's `generate`.

    Args:
        temperature: divides the logits; 0 is greedy and ignores the other settings.
        top_k: number of most likely tokens to choose from; 0 for all.
        top_p: choose from the most likely tokens that together have at least this probability.
        seed: seed of the random numbers. A request's tokens do not depend on other requests.
    Raises:
        ConfigError: a setting is out of range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = field(default=0, eq=False)

    def __attrs_post_init__(self) -> None:
        in_range = {
            f"temperature {self.temperature}": 0 <= self.temperature < math.inf,
            f"top-k {self.top_k}": isinstance(self.top_k, int) and self.top_k >= 0,
            f"top-p {self.top_p}": 0 < self.top_p <= 1,
            f"seed {self.seed}": 0 <= self.seed < 1 << 40,
        }
        for setting, fits in in_range.items():
            if not fits:
                raise ConfigError(
                    f"{setting} is out of range",
                    remedy="temperature and top-k are finite and at least 0, top-p is above 0 and at most 1, the seed "
                    "is 0 to 2^40 - 1",
                )

    @property
    def is_greedy(self) -> bool:
        """Whether the most likely token is always chosen."""
        return self.temperature == 0

    def uniforms(self, number: int, count: int) -> Iterator[float]:
        """Random numbers in [0, 1) for `count` tokens of request `number`; none for greedy."""
        if self.is_greedy:
            return iter(())
        generator = torch.Generator().manual_seed((self.seed << 20) + number)
        return iter(torch.rand(count, generator=generator).tolist())


GREEDY = Sampling(temperature=0.0)


@frozen
class TokenLogprobs:
    """Logarithms of probabilities in the place of one token, by the model's own logits.

    Args:
        logprob: of the token that was chosen.
        top: ids of the most likely tokens and theirs, the likeliest first.
    """

    logprob: float
    top: tuple[tuple[int, float], ...]


def log_probabilities(logits: Tensor, chosen: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Logarithms of the probabilities of the chosen and of the `count` most likely tokens.

    Args:
        logits: float32 [B, V].
        chosen: int64 [B].
    Returns:
        float32 [B, 1 + K], the chosen token first, then the likeliest ones; and their ids, int64 [B, K].
    """
    values = logits.log_softmax(-1)
    most, ids = values.topk(min(count, values.shape[-1]), dim=-1)
    return torch.cat([values.gather(-1, chosen[:, None]), most], dim=-1), ids


def candidates(logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Candidate tokens and their probabilities.

    Args:
        logits: float32 [B, V].
    Returns:
        Probabilities, float32 [B, K], descending, 0 for tokens excluded by top-p, NaN where the largest logit is not a
        finite number; and token ids, int64 [B, K].
    Source: temperature, top-k and nucleus sampling (Holtzman et al., arXiv:1904.09751), in the order of Hugging Face.
    """
    count = min(sampling.top_k, logits.shape[-1]) or logits.shape[-1]
    scores, tokens = logits.topk(count, dim=-1)
    temperature = min(max(sampling.temperature, _COLDEST), _HOTTEST)
    probabilities = ((scores - scores[:, :1]) / temperature).softmax(-1)
    if sampling.top_p < 1:
        before = probabilities.cumsum(-1) - probabilities
        kept = before < sampling.top_p
        kept[:, 0] = True
        probabilities = probabilities * kept
        probabilities = probabilities / probabilities.sum(-1, keepdim=True)
    return probabilities, tokens


def choose(logits: Tensor, sampling: Sampling, uniform: Tensor | None) -> Tensor:
    """Choose the next token of each row, without waiting for the device.

    Args:
        logits: float32 [B, V].
        uniform: float32 [B] in [0, 1), random numbers; None for greedy.
    Returns:
        int64 [B]; -1 where no token can be chosen: a logit is NaN or, if `uniform` is given, the largest is not finite.
    """
    if uniform is None:
        largest, tokens = logits.max(-1)
        return torch.where(largest.isnan(), -1, tokens)
    probabilities, tokens = candidates(logits, sampling)
    reached = probabilities.cumsum(-1)
    place = (reached <= uniform[:, None] * reached[:, -1:]).sum(-1, keepdim=True)
    last = (probabilities > 0).sum(-1, keepdim=True) - 1  # rounding must not pass the last candidate
    sampled = tokens.gather(-1, torch.minimum(place, last).clamp(min=0))
    return torch.where(last < 0, last, sampled).squeeze(-1)
