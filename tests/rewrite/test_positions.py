"""Counts of tokens become their positions: a token gets the same wherever a call starts."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from ditto.rewrite.clean import clean
from ditto.rewrite.positions import use_given_positions
from ditto.rewrite.tokens import refuse_other_state
from tests.support.programs import FunctionModule, captured, run_program
from tests.support.rewriting import check_misses

BATCH, LENGTH, WIDTH = 2, 5, 4
_RANDOM = torch.Generator().manual_seed(0)
X = torch.randn(BATCH, LENGTH, WIDTH, generator=_RANDOM)
TABLE = torch.randn(32, WIDTH, generator=_RANDOM)
BUFFERS = {"ids": torch.arange(32)[None] % 3, "waves": torch.randn(1, 32, WIDTH, generator=_RANDOM)}
NAMES = {"x": "batch sequence", "positions": "batch sequence"}
given = partial(use_given_positions, positions="positions")


def _learned(self, x, positions):
    """BART: an offset, and one row of counts for all rows of a batch."""
    counted = torch.arange(0, x.shape[1]).unsqueeze(0) + 2
    return x + torch.nn.functional.embedding(counted, self.table)


def _expanded(self, x, positions):
    """MVP: counts for each row of a batch."""
    counted = torch.arange(x.shape[1]).expand(x.shape[0], -1)
    return x * torch.nn.functional.embedding(counted, self.table)


def _from_two(self, x, positions):
    """RoBERTa: counts from the number after that of padding."""
    counted = torch.arange(2, x.shape[1] + 2).unsqueeze(0).expand(x.shape[:2])
    return x + torch.nn.functional.embedding(counted, self.table)


def _without_rows(self, x, positions):
    """Marian: an embedding [S, width], which broadcasts."""
    return x + torch.nn.functional.embedding(torch.arange(x.shape[1]), self.table)


def _sliced(self, x, positions):
    """Whisper: the first rows of a table."""
    return x + self.table[: x.shape[1]] + self.waves[:, 1 : x.shape[1] + 1]


def _of_a_buffer(self, x, positions):
    """BigBird: counts in a buffer."""
    kinds = self.ids[:, : x.shape[1]].expand(x.shape[0], -1)
    return x + torch.nn.functional.embedding(kinds, self.table)


def _rotated(self, x, positions):
    """RoFormer: sines and cosines in the two halves of a table, one pair of columns after the other."""
    sin, cos = torch.nn.functional.embedding(torch.arange(x.shape[1]), self.table)[None, None].chunk(2, dim=-1)
    heads = x[:, None]
    doubled = torch.stack([sin, sin], dim=-1).reshape_as(heads[:1])
    return (heads * doubled + torch.cat([cos, cos], -1)).squeeze(1)


def _computed(self, x, positions):
    angles = torch.arange(x.shape[1])[:, None].float() * 0.3
    return x * torch.cat((angles.sin(), angles.cos()), -1)[..., :1]


def _viewed(self, x, positions):
    """Llama 4: a factor of each position, with an axis for heads."""
    factors = torch.log1p(torch.arange(x.shape[1]).float()).view(1, x.shape[1], 1, 1)
    return (x[:, :, None] * factors.expand(x.shape[0], x.shape[1], 1, 1)).squeeze(2)


FORMS = [_viewed, _learned, _expanded, _from_two, _without_rows, _sliced, _of_a_buffer, _rotated, _computed]


@pytest.mark.parametrize("form", FORMS)
def test_the_last_tokens_alone_get_what_they_get_in_the_whole_sequence(form):
    module = FunctionModule(form, {"table": TABLE}, BUFFERS)
    places = torch.arange(LENGTH, dtype=torch.int32).repeat(BATCH, 1)
    program = captured(module, {"x": X, "positions": places}, NAMES)
    clean(program)
    assert given(program) > 0
    program.graph.lint()
    assert refuse_other_state(program) == 0
    wanted = module(X, places)
    torch.testing.assert_close(run_program(program, {"x": X, "positions": places}, module), wanted)
    ends = torch.tensor([[1, 2], [3, 4]])  # each row has its own place in its sequence
    rest = torch.stack([row[end] for row, end in zip(X, ends)])
    found = run_program(program, {"x": rest, "positions": ends.int()}, module)
    torch.testing.assert_close(found, torch.stack([row[end] for row, end in zip(wanted, ends)]))


def _compared(self, x, positions):
    counted = torch.arange(x.shape[1])
    return x.sum(-1) + (counted[:, None] >= counted[None, :]).sum(-1)


def _reversed(self, x, positions):
    return x + torch.nn.functional.embedding(x.shape[1] - 1 - torch.arange(x.shape[1]), self.table)


def _of_rows(self, x, positions):
    return x + torch.arange(x.shape[0])[:, None, None]


@pytest.mark.parametrize("function", [_compared, _of_rows])
def test_other_counts_stay(function):
    module = FunctionModule(function, {"table": TABLE}, BUFFERS)
    places = torch.arange(LENGTH, dtype=torch.int32).repeat(BATCH, 1)
    check_misses(given, module, {"x": X, "positions": places}, NAMES)


def test_counts_from_the_end_are_refused_still():
    from ditto.errors import UnsupportedFeature

    module = FunctionModule(_reversed, {"table": TABLE}, BUFFERS)
    places = torch.arange(LENGTH, dtype=torch.int32).repeat(BATCH, 1)
    program = captured(module, {"x": X, "positions": places}, NAMES)
    clean(program)
    given(program)
    with pytest.raises(UnsupportedFeature, match="follow from how many tokens are given"):
        refuse_other_state(program)
