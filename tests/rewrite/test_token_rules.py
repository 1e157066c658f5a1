"""What is accepted treats tokens one by one, and what does not is refused: tried on PyTorch's own results.

An engine gives a decoder one token of one row at a time. So what a function says of a token may not change when the
others are left away.
"""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from ditto.errors import UnsupportedFeature
from ditto.ops.traits import TRAITS, Trait
from ditto.rewrite.clean import clean
from ditto.rewrite.token_rules import rule_of
from ditto.rewrite.tokens import refuse_other_state
from tests.support.programs import captured

aten = torch.ops.aten
BATCH, LENGTH, WIDTH = 3, 5, 8
_RANDOM = torch.Generator().manual_seed(0)
X = torch.randn(BATCH, LENGTH, WIDTH, generator=_RANDOM)
IDS = torch.randint(0, WIDTH, (BATCH, LENGTH), generator=_RANDOM)
SQUARE = torch.randn(WIDTH, WIDTH, generator=_RANDOM)
TABLE = torch.randn(64, WIDTH, generator=_RANDOM)
ORDER = torch.randperm(WIDTH, generator=_RANDOM)


def _flat(x):
    return x.reshape(-1, WIDTH)


def _heads(x):
    return x.view(x.shape[0], x.shape[1], 2, 4).transpose(1, 2)


def _merged(x):
    return x.transpose(1, 2).reshape(x.shape[0], -1, WIDTH)


def _rows(x):
    return (x @ SQUARE).view(-1, 4) * torch.ones(x.shape[0] * x.shape[1] * 2, 1)


APART = {
    "a linear layer": lambda x, ids: functional.linear(x, SQUARE, SQUARE[0]),
    "a product with a weight": lambda x, ids: x @ SQUARE,
    "a product over flattened tokens": lambda x, ids: (_flat(x) @ SQUARE).view(x.shape),
    "a product written as einsum": lambda x, ids: torch.einsum("bsw,wv->bsv", x, SQUARE),
    "a batch norm of columns": lambda x, ids: functional.batch_norm(
        x.permute(0, 2, 1), SQUARE[0], SQUARE[0].abs() + 1
    ).permute(0, 2, 1),
    "columns resized": lambda x, ids: functional.interpolate(
        x.reshape(x.shape[0], x.shape[1], 2, 4), size=(4, 2), mode="bilinear"
    ).flatten(2),
    "a norm over columns": lambda x, ids: functional.layer_norm(x, (WIDTH,)),
    "a norm over heads": lambda x, ids: functional.layer_norm(x.reshape(-1, 4), (4,)).reshape(x.shape),
    "heads, and back": lambda x, ids: _merged(_heads(x) * 2),
    "heads, repeated": lambda x, ids: (
        _heads(x)[:, :, None].expand(-1, -1, 2, -1, -1).reshape(x.shape[0], 4, -1, 4).transpose(1, 2).flatten(2)
    ),
    "heads, permuted": lambda x, ids: _heads(x).permute(0, 2, 3, 1).flatten(2),
    "softmax over columns": lambda x, ids: x.softmax(-1),
    "reductions over columns": lambda x, ids: (
        x.mean(-1, keepdim=True) + x.amax(2, keepdim=True) + x.sum(dim=[-1])[..., None]
    ),
    "halves of columns": lambda x, ids: torch.cat((-x[..., 4:], x[..., :4]), -1),
    "chunks of columns": lambda x, ids: x.chunk(2, -1)[0] * x.split([6, 2], -1)[0][..., 1:5],
    "pairs of columns": lambda x, ids: torch.stack((x[..., ::2], x[..., 1::2]), -1).flatten(-2),
    "columns repeated": lambda x, ids: x.repeat(1, 1, 3),
    "columns rolled": lambda x, ids: x.roll(3, -1).flip(-1),
    "columns added up": lambda x, ids: x.cumsum(-1),
    "columns in another order": lambda x, ids: x[..., ORDER] + x.index_select(-1, ORDER),
    "columns chosen by the token": lambda x, ids: x.gather(-1, ids[..., None]),
    "a buffer's entries, gathered": lambda x, ids: (
        x + TABLE[:, 0][None].expand(x.shape[0], -1).gather(1, ids)[..., None]
    ),
    "a table's rows": lambda x, ids: functional.embedding(ids, SQUARE) + SQUARE[ids] * x,
    "a choice": lambda x, ids: torch.where(ids[..., None] > 3, x, SQUARE[0]).masked_fill(x > 1, 0.5),
    "zeros and ones of a shape": lambda x, ids: x + torch.zeros(x.shape[0], x.shape[1], 1) + x.new_ones(x.shape),
    "a full tensor": lambda x, ids: x * torch.full((x.shape[1], 1), 2.5),
    "a mask of ones": lambda x, ids: x * torch.ones_like(ids)[..., None].to(x.dtype),
    "a weight for all tokens": lambda x, ids: x + SQUARE[0].expand(x.shape[0], x.shape[1], -1),
    "padded columns": lambda x, ids: functional.pad(x, (1, 2)),
    "a convolution inside a token": lambda x, ids: functional.conv1d(_flat(x)[:, None], SQUARE[:2, None, :3]).view(
        *x.shape[:2], -1
    ),
    "a batch of convolved columns": lambda x, ids: functional.conv1d(x.reshape(-1, 2, 4), torch.ones(2, 2, 1)).view(
        x.shape
    ),
}

WORDS = {
    "conv1d over time": (
        lambda x, ids: functional.conv1d(
            functional.pad(x.transpose(1, 2), (2, 0)), SQUARE[:, :, None].expand(-1, -1, 3)
        ).transpose(1, 2),
        "convolves|moves",
    ),
    "conv1d that looks round": (
        lambda x, ids: functional.conv1d(x.transpose(1, 2), SQUARE[:, :, None].expand(-1, -1, 3), padding=1).transpose(
            1, 2
        ),
        "convolves over the tokens",
    ),
    "cumsum": (lambda x, ids: x.cumsum(1), "adds up over the tokens"),
    "roll": (lambda x, ids: x.roll(1, 1), "moves the tokens"),
    "roll of everything": (lambda x, ids: x.roll(1), "moves the tokens"),
    "flip": (lambda x, ids: x.flip(1), "turns the tokens"),
    "a shift by one": (lambda x, ids: torch.cat((torch.zeros_like(x[:, :1]), x[:, :-1]), 1), "a part of a sequence"),
    "a shift by padding": (lambda x, ids: functional.pad(x, (0, 0, 1, -1)) + x, "moves the tokens"),
    "the first token": (lambda x, ids: x + x[:, 0][:, None], "picks a token"),
    "every other token": (lambda x, ids: x + x[:, ::2].sum(1, keepdim=True), "a part of a sequence"),
    "the mean of a sequence": (lambda x, ids: x - x.mean(1, keepdim=True), "brings the tokens of a sequence together"),
    "the mean of everything": (lambda x, ids: x - x.mean(), "brings the tokens of a sequence together"),
    "the largest of the batch": (
        lambda x, ids: x - x.amax(0, keepdim=True),
        "brings the tokens of a sequence together",
    ),
    "softmax over a sequence": (lambda x, ids: x.softmax(1), "weighs the tokens"),
    "a norm over a sequence": (lambda x, ids: x / x.norm(dim=1, keepdim=True), "brings the tokens of a sequence"),
    "attention by hand": (lambda x, ids: (x @ x.transpose(1, 2)).softmax(-1) @ x, "multiplies the tokens"),
    "attention by einsum": (
        lambda x, ids: torch.einsum("bst,btw->bsw", torch.einsum("bsw,btw->bst", x, x), x),
        "multiplies the tokens",
    ),
    "attention over columns": (lambda x, ids: x @ (x.transpose(1, 2) @ x), "multiplies the tokens"),
    "attention by bmm": (lambda x, ids: torch.bmm(torch.bmm(x, x.transpose(1, 2)), x), "multiplies the tokens"),
    "attention by baddbmm": (
        lambda x, ids: torch.baddbmm(x.new_zeros(1, 1, 1), x, x.transpose(1, 2)) @ x,
        "multiplies the tokens",
    ),
    "tokens pooled": (
        lambda x, ids: x + functional.adaptive_avg_pool2d(x[:, None], (1, WIDTH))[:, 0],
        "resizes over the tokens",
    ),
    "tokens beside each other": (lambda x, ids: (x[:, :, None] - x[:, None]).abs().sum(2), "with other tokens"),
    "tokens chosen by tokens": (lambda x, ids: _flat(x)[ids], "picks tokens"),
    "the first token's columns, gathered": (
        lambda x, ids: x + x.gather(2, torch.zeros(x.shape[0], 1, 3, dtype=torch.long)).sum(-1, keepdim=True),
        "picks tokens",
    ),
    "tokens gathered": (lambda x, ids: x.gather(1, (ids % 1)[..., None].expand(-1, -1, WIDTH)), "picks tokens"),
    "pairs of positions": (
        lambda x, ids: x + (ids[:, :, None] - ids[:, None, :]).sum(-1, keepdim=True),
        "with other tokens",
    ),
}

COUNTED = {
    "positions counted": lambda x, ids: x + functional.embedding(torch.arange(x.shape[1]), TABLE),
    "positions counted from two": lambda x, ids: x + functional.embedding(torch.arange(2, x.shape[1] + 2), TABLE),
    "positions by ones added up": lambda x, ids: x + torch.ones_like(ids).cumsum(1)[..., None],
    "a table cut off": lambda x, ids: x + TABLE[: x.shape[1]],
    "a table cut off further on": lambda x, ids: x + TABLE[x.shape[1] : x.shape[1] + 1],
    "a factor": lambda x, ids: x * x.shape[1],
    "a row of a table": lambda x, ids: x + TABLE[x.shape[1]],
    "a fill": lambda x, ids: x + torch.full((1, 1, 1), x.shape[1]),
    "a mean of ones": lambda x, ids: x * torch.ones_like(x).sum(1, keepdim=True),
    "the count of rows": lambda x, ids: x / x.shape[0],
    "a mask by hand": lambda x, ids: x + torch.ones(x.shape[1], x.shape[1]).tril().sum(-1)[:, None],
}


def _program(function):
    program = captured(function, {"x": X, "ids": IDS}, {"x": "batch sequence", "ids": "batch sequence"})
    clean(program)
    return program


def _is_one_by_one(function):
    """Whether a function says the same of every token alone."""
    whole = function(X, IDS)
    for row in range(BATCH):
        for token in range(LENGTH):
            here = slice(row, row + 1), slice(token, token + 1)
            try:
                alone = function(X[here], IDS[here])
            except (IndexError, RuntimeError):
                return False
            if alone.shape[:2] != (1, 1) or not torch.allclose(alone, whole[here], atol=1e-5):
                return False
    return True


@pytest.mark.parametrize("function", APART.values(), ids=APART)
def test_what_keeps_tokens_apart_is_accepted(function):
    program = _program(function)
    assert refuse_other_state(program) == 0
    assert not program.doubts
    assert _is_one_by_one(function)


@pytest.mark.parametrize(("function", "words"), WORDS.values(), ids=WORDS)
def test_what_mixes_tokens_is_refused(function, words):
    assert not _is_one_by_one(function)
    with pytest.raises(UnsupportedFeature, match=f"follow from other tokens of its sequence: `aten.*({words})"):
        refuse_other_state(_program(function))


@pytest.mark.parametrize("function", COUNTED.values(), ids=COUNTED)
def test_what_counts_tokens_is_refused(function):
    assert not _is_one_by_one(function)
    with pytest.raises(UnsupportedFeature, match="follow from how many tokens are given: `.*` counts them"):
        refuse_other_state(_program(function))


# Of shapes and numbers, or made after the check.
_WITHOUT = Trait.OF_SHAPE | Trait.OF_NUMBERS


@pytest.mark.parametrize("operator", TRAITS, ids=str)
def test_every_known_operator_has_a_rule(operator):
    is_needed = not TRAITS[operator] & _WITHOUT and operator != torch.ops.ditto.packed_attention.default
    assert (rule_of(operator) is not None) or not is_needed


def test_an_operator_without_a_rule_has_none():
    assert rule_of(aten.nonzero.default) is None
    assert rule_of(len) is None
