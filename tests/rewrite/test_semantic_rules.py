"""Ditto's own operators: what attention may attend to, and whose experts a token may choose."""

from __future__ import annotations

import pytest
import torch

from ditto import ops
from ditto.errors import UnsupportedFeature
from ditto.rewrite.tokens import refuse_other_state
from tests.support.programs import FunctionModule, captured

LENGTH = 5
_RANDOM = torch.Generator().manual_seed(0)
HEADS = torch.randn(2, 3, LENGTH, 4, generator=_RANDOM)
ELSEWHERE = {
    "an image": (lambda x: _attend(x, torch.ones(1, 3, 7, 4).expand(x.shape[0], -1, -1, -1)), "something other"),
    "heads in the place of tokens": (lambda x: _attend(x.transpose(1, 2), x.transpose(1, 2)), "tokens for heads"),
    "other rows": (lambda x: _attend(x, x[:1].expand(x.shape[0], -1, -1, -1)), "a part of a sequence"),
}


def _attend(query, key):
    return ops.attention(query, key, key, None, None, 0.5, True, 0, 0.0, 0)


def test_attention_is_what_tokens_may_reach_each_other_by():
    program = captured(lambda x: _attend(x, x * 2), {"x": HEADS}, {"x": "batch . sequence"})
    assert refuse_other_state(program) == 0


@pytest.mark.parametrize(("function", "words"), ELSEWHERE.values(), ids=ELSEWHERE)
def test_attention_to_anything_else_is_refused(function, words):
    program = captured(function, {"x": HEADS}, {"x": "batch . sequence"})
    with pytest.raises(UnsupportedFeature, match=words):
        refuse_other_state(program)


X = torch.randn(2, LENGTH, 4, generator=_RANDOM)
WEIGHTS = {"up": torch.randn(3, 6, 4, generator=_RANDOM), "down": torch.randn(3, 4, 6, generator=_RANDOM)}
ROUTED = {
    "its own": lambda rows: rows,
    "another token's": lambda rows: rows.flip(0),
    "the first token's": lambda rows: rows[:1].expand(rows.shape[0], -1),
}


def _experts(route):
    def forward(self, x):
        rows = x.reshape(-1, 4)
        shares, chosen = route(rows)[:, :3].softmax(-1).topk(2)
        inner = ops.expert_linear(rows, self.up, None, chosen, False)
        return ops.expert_sum(inner.relu(), self.down, None, chosen, shares, False).reshape(x.shape)

    return captured(FunctionModule(forward, WEIGHTS), {"x": X}, {"x": "batch sequence"})


def test_experts_keep_tokens_apart():
    assert refuse_other_state(_experts(ROUTED["its own"])) == 0


@pytest.mark.parametrize("name", ["another token's", "the first token's"])
def test_experts_that_other_tokens_choose_are_refused(name):
    with pytest.raises(UnsupportedFeature, match="follow from other tokens"):
        refuse_other_state(_experts(ROUTED[name]))


KERNEL = {"kernel": torch.randn(4, 1, 3, generator=_RANDOM)}


def test_a_causal_convolution_is_what_tokens_may_reach_each_other_by():
    function = FunctionModule(lambda self, x: ops.causal_conv(x.transpose(1, 2), self.kernel, None, 0), KERNEL)
    assert refuse_other_state(captured(function, {"x": X}, {"x": "batch sequence"})) == 0


def test_tokens_are_not_channels_of_a_convolution():
    function = FunctionModule(
        lambda self, x: ops.causal_conv(x, self.kernel[:1].expand(x.shape[1], -1, -1), None, 0), KERNEL
    )
    with pytest.raises(UnsupportedFeature, match="tokens for channels"):
        refuse_other_state(captured(function, {"x": X}, {"x": "batch sequence"}))
