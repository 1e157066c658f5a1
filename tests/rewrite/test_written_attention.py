"""Attention that a model writes out becomes the operator; what is something else stays as it is."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.nn.functional import softmax

from ditto.rewrite.rule import arguments
from ditto.rewrite.written_attention import recognise_written_attention
from tests.support.programs import FunctionModule
from tests.support.rewriting import check_applies, check_misses

BATCH, HEADS, LENGTH, WIDTH = 2, 3, 7, 4
X = torch.randn(BATCH, LENGTH, HEADS * WIDTH, generator=torch.Generator().manual_seed(0))
SIZES = {"batch": BATCH, "sequence": LENGTH}
NAMES = {"x": "batch sequence"}
LOWEST = torch.finfo(torch.float32).min
recognise = partial(recognise_written_attention, sizes=SIZES)


def _heads(x, count=HEADS):
    return x.view(x.shape[0], x.shape[1], count, -1).transpose(1, 2)


def _merged(x):
    return x.transpose(1, 2).flatten(2)


def _causal(x, window=0):
    places = torch.arange(x.shape[1])
    seen = places[None, :] <= places[:, None]
    return seen & (places[None, :] > places[:, None] - window) if window else seen


def _added(x, window=0):
    return torch.where(_causal(x, window), 0.0, LOWEST)[None, None]


def _gpt_neo(x):
    scores = _heads(x) @ _heads(x * 2).transpose(-1, -2)
    return _merged(softmax(torch.where(_causal(x), scores, torch.tensor(LOWEST)), dim=-1) @ _heads(x))


def _megatron(x):
    scores = _heads(x) @ _heads(x * 2).transpose(-1, -2) / 1.7 + _added(x)
    return _merged(softmax(scores, dim=-1) @ _heads(x))


def _windowed(x):
    scores = (_heads(x) * 0.5) @ _heads(x).transpose(-1, -2) * 0.9
    return _merged(softmax((scores + _added(x, 3)).float(), dim=-1) @ _heads(x * 3))


def _multi_query(x):
    key, value = _heads(x[..., :WIDTH], 1), _heads(x[..., WIDTH : 2 * WIDTH], 1)
    return _merged(softmax(_heads(x) @ key.transpose(-1, -2) + _added(x), dim=-1) @ value)


def _openai(x):
    seen = _causal(x).float()
    scores = (_heads(x) @ _heads(x).transpose(-1, -2)) * seen + -1e4 * (1 - seen)
    return _merged(softmax(scores, dim=-1) @ _heads(x))


def _flat(x):
    return x.reshape(-1, x.shape[2], x.shape[3])


def _xglm(x):
    """Heads as a part of the batch, and a second clamp of masked scores."""
    query, key, value = (_flat(_heads(part)) for part in (x, x * 2, x * 3))
    scores = torch.bmm(query, key.transpose(1, 2)).view(x.shape[0], HEADS, x.shape[1], x.shape[1]) + _added(x)
    scores = torch.max(scores, torch.tensor(LOWEST)).view(-1, x.shape[1], x.shape[1])
    result = torch.bmm(softmax(scores, dim=-1), value)
    return _merged(result.view(x.shape[0], HEADS, x.shape[1], WIDTH))


SLOPES = torch.tensor([0.5, 0.25, 0.0625])


def _bloom(x):
    """A bias of each head and key, and scaling in one operator with the product."""
    places = torch.ones_like(x[..., 0]).cumsum(-1) - 1
    bias = (SLOPES[:, None] * places[:, None, :]).reshape(-1, 1, x.shape[1])
    query, key, value = (_flat(_heads(part)) for part in (x, x * 2, x * 3))
    scores = torch.baddbmm(bias, query, key.transpose(1, 2), beta=1.0, alpha=0.7)
    scores = scores.view(x.shape[0], HEADS, x.shape[1], x.shape[1]) + _added(x)
    result = torch.bmm(softmax(scores, dim=-1).view(-1, x.shape[1], x.shape[1]), value)
    return _merged(result.view(x.shape[0], HEADS, x.shape[1], WIDTH))


def _mpt(x):
    bias = SLOPES[:, None, None] * (torch.arange(x.shape[1]) - x.shape[1] + 1)
    scores = _heads(x) @ _heads(x).transpose(-1, -2) * 0.5 + bias
    return _merged(softmax(scores.masked_fill(~_causal(x), LOWEST), dim=-1) @ _heads(x))


# What becomes of it: scale, window, and whether heads have slopes.
FORMS = {
    _gpt_neo: (1.0, 0, False),
    _megatron: (1 / 1.7, 0, False),
    _windowed: (0.9, 3, False),
    _multi_query: (1.0, 0, False),
    _openai: (1.0, 0, False),
    _xglm: (1.0, 0, False),
    _bloom: (0.7, 0, True),
    _mpt: (0.5, 0, True),
}


@pytest.mark.parametrize(("function", "facts"), FORMS.items(), ids=[form.__name__ for form in FORMS])
def test_attention_of_a_models_own_code_becomes_the_operator(function, facts):
    scale, window, sloped = facts
    program = check_applies(recognise, function, {"x": X}, names=NAMES)
    (node,) = (node for node in program.graph.nodes if node.target == torch.ops.ditto.attention.default)
    given = arguments(node)
    assert (given["scale"], given["causal"], given["window"], given["mask"]) == (
        pytest.approx(scale),
        True,
        window,
        None,
    )
    assert torch.equal(program.constants[given["slopes"].target], SLOPES) if sloped else given["slopes"] is None
    assert not any(n.target == torch.ops.aten.softmax.int for n in program.graph.nodes)


def test_attentions_are_numbered_in_order():
    program = check_applies(recognise, lambda x: _megatron(_gpt_neo(x)), {"x": X}, 2, names=NAMES)
    nodes = [node for node in program.graph.nodes if node.target == torch.ops.ditto.attention.default]
    assert [arguments(node)["layer"] for node in nodes] == [0, 1]


def _relative(x):
    """A bias by distance that is not linear in it."""
    places = torch.arange(x.shape[1])
    bias = (places[None, :] - places[:, None]).abs().float().sqrt()
    return _merged(softmax(_heads(x) @ _heads(x).transpose(-1, -2) + bias + _added(x), dim=-1) @ _heads(x))


def _of_values(x):
    """A mask that follows from what the tokens are."""
    seen = (x[:, None, None, :, 0] > 0) | torch.eye(x.shape[1], dtype=torch.bool)
    scores = (_heads(x) @ _heads(x).transpose(-1, -2)).masked_fill(~seen, LOWEST)
    return _merged(softmax(scores + _added(x), dim=-1) @ _heads(x))


def _of_little_weight(x):
    """Keys that are not seen have a low score, and count."""
    scores = (_heads(x) @ _heads(x).transpose(-1, -2)).masked_fill(~_causal(x), -5.0)
    return _merged(softmax(scores, dim=-1) @ _heads(x))


def _over_queries(x):
    scores = _heads(x) @ _heads(x).transpose(-1, -2) + _added(x)
    return _merged(softmax(scores, dim=-2) @ _heads(x))


def _chunks(x):
    places = torch.arange(x.shape[1]) // 3
    seen = _causal(x) & (places[None, :] == places[:, None])
    scores = (_heads(x) @ _heads(x).transpose(-1, -2)).masked_fill(~seen, LOWEST)
    return _merged(softmax(scores, dim=-1) @ _heads(x))


def _normalised(x):
    scores = _heads(x) @ _heads(x).transpose(-1, -2) + _added(x)
    return _merged((softmax(scores, dim=-1) * 0.5) @ _heads(x))


def _of_learned_factors(self, x):
    scores = (_heads(x) @ _heads(x).transpose(-1, -2)) * self.factors + _added(x)
    return _merged(softmax(scores, dim=-1) @ _heads(x))


OTHERS = [_relative, _of_values, _of_little_weight, _over_queries, _chunks, _normalised]


@pytest.mark.parametrize("function", OTHERS)
def test_what_is_something_else_stays(function):
    check_misses(recognise, function, {"x": X}, names=NAMES)


def test_scores_times_a_weight_stay():
    module = FunctionModule(_of_learned_factors, {"factors": torch.rand(1, HEADS, 1, 1)})
    check_misses(recognise, module, {"x": X}, names=NAMES)
