"""A packed program computes what the program over one row of tokens computes, and the batch axis is gone from it."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from ditto import ops
from ditto.builders.llm import LlmBuilder
from ditto.capture import export
from ditto.errors import UnsupportedFeature
from ditto.program import evaluate
from ditto.reference import TOLERANCE
from ditto.rewrite import rewrite
from ditto.rewrite.clean import clean
from ditto.targets.registry import target
from ditto.targets.trtllm.packing import drop_batch, pack_attention
from tests.support.models import TEXT_MODELS
from tests.support.programs import captured, operators, run_program

aten, _ditto = torch.ops.aten, torch.ops.ditto
TOKENS, HEADS, KV_HEADS, WIDTH = 7, 4, 2, 8


def _rewritten(model):
    builder = LlmBuilder.from_model(model).with_batch(4).with_max_seq_len(24).with_max_input_len(16)
    part = builder.part(target("trtllm"))
    program = export(part.wrapper, part.inputs, part.output_names, part.prefix, part.dtype)
    rewrite(program, part.sizes, part.positions)
    return program, dict(part.wrapper.named_parameters(remove_duplicate=False)).__getitem__


@pytest.mark.drawn(5)
@pytest.mark.parametrize("name", TEXT_MODELS)
def test_packing_changes_no_number_of_a_model(name):
    program, parameter = _rewritten(TEXT_MODELS[name]())
    given = {
        "input_ids": torch.randint(3, 126, (11,), generator=torch.Generator().manual_seed(0), dtype=torch.int32),
        "position_ids": torch.arange(11, dtype=torch.int32),
        "last_token_ids": torch.tensor([4, 11], dtype=torch.int32),
    }
    (before,) = evaluate(program, given, parameter)
    assert pack_attention(program, "position_ids") == 2
    (packed,) = evaluate(program, given, parameter)
    assert_close(packed, before, **TOLERANCE[torch.float32])
    assert drop_batch(program) > 0
    (after,) = evaluate(program, given, parameter)
    assert_close(after, before, **TOLERANCE[torch.float32])
    made = operators(program)
    assert made.count(_ditto.packed_attention.default) == 2
    assert not {_ditto.attention.default, _ditto.rope.default, aten.transpose.int} & set(made)
    ranks = {node.meta["val"].dim() for node in program.graph.nodes if node.target == aten.linear.default}
    assert ranks == {2}


class _Attention(nn.Module):
    """Projections of one row of tokens around attention; what it says of attention is to be set."""

    def __init__(self, **says):
        super().__init__()
        width = HEADS * WIDTH
        self.q, self.k, self.v = (nn.Linear(width, n * WIDTH, bias=False) for n in (HEADS, KV_HEADS, KV_HEADS))
        self.says = {"mask": None, "sinks": None, "causal": True, "softcap": 0.0, "query": lambda x: x, **says}

    def forward(self, x):
        rows = x.unsqueeze(0)
        query, key, value = (
            part(rows).view(1, -1, heads, WIDTH).transpose(1, 2)
            for part, heads in ((self.q, HEADS), (self.k, KV_HEADS), (self.v, KV_HEADS))
        )
        says = self.says
        result = ops.attention(
            says["query"](query), key, value, says["mask"], says["sinks"], 0.3, says["causal"], 0, says["softcap"], 5
        )
        return result.transpose(1, 2).reshape(1, -1, HEADS * WIDTH).squeeze(0)


X = {"x": torch.randn(TOKENS, HEADS * WIDTH, generator=torch.Generator().manual_seed(0))}


@pytest.mark.parametrize(
    ("says", "message"),
    [
        ({"sinks": torch.zeros(HEADS)}, "attention has learned sinks"),
        ({"causal": False}, "the decoder's attention is not causal"),
        ({"mask": torch.ones(TOKENS, TOKENS, dtype=torch.bool)}, "the decoder's attention is not causal"),
    ],
)
def test_attention_that_the_plugin_cannot_express_is_refused(says, message):
    program = captured(_Attention(**says), X)
    with pytest.raises(UnsupportedFeature, match=message):
        pack_attention(program, "position_ids")


class _Permuted(_Attention):
    """Heads are merged by a permutation, which is no transpose of two axes."""

    def forward(self, x):
        query, key, value = (part(x.unsqueeze(0)).unflatten(-1, (-1, WIDTH)) for part in (self.q, self.k, self.v))
        result = ops.attention(*(y.transpose(1, 2) for y in (query, key, value)), None, None, 0.3, True, 0, 0.0, 5)
        return result.permute(0, 2, 1, 3).reshape(1, -1, HEADS * WIDTH).squeeze(0)


def test_heads_that_are_merged_in_another_way_are_split_again():
    module = _Permuted()
    program = captured(module, X, {"x": "tokens"})
    before = run_program(program, X, module)
    assert pack_attention(program, "position_ids") == 1
    program.graph.lint()
    assert_close(run_program(program, X, module), before)
    drop_batch(program)
    program.graph.lint()
    assert_close(run_program(program, X, module), before)


MORE = {
    "slopes": (WIDTH, torch.ones(HEADS), "attention scores get a bias by distance"),
    "narrow values": (WIDTH - 1, None, "values have another width than keys"),
}


@pytest.mark.parametrize(("width", "slopes", "message"), MORE.values(), ids=MORE)
def test_other_terms_and_widths_are_refused(width, slopes, message):
    def attend(x):
        rows = x.reshape(1, -1, HEADS, WIDTH).transpose(1, 2)
        result = ops.attention(rows, rows, rows[..., :width], None, None, 0.3, True, 0, 0.0, 5, slopes)
        return result.transpose(1, 2).flatten(2).squeeze(0)

    program = captured(attend, X, {"x": "tokens"})
    with pytest.raises(UnsupportedFeature, match=message):
        pack_attention(program, "position_ids")


def test_what_lies_between_a_projection_and_attention_stays():
    """A function of single heads, such as a norm of queries, is computed before the plugin."""
    module = _Attention(softcap=2.0, query=lambda x: torch.tanh(x) * 3)
    program = captured(module, X, {"x": "tokens"})
    before = run_program(program, X, module)
    assert pack_attention(program, "position_ids") == 1
    drop_batch(program)
    assert_close(run_program(program, X, module), before)
    (node,) = (node for node in program.graph.nodes if node.target == _ditto.packed_attention.default)
    assert node.args[1:] == (None, None, HEADS, KV_HEADS, False, 0.3, 0, 2.0, 5)


DROPS = {
    "an activation": lambda x: torch.relu(x),
    "a norm": lambda x: ops.rms_norm(x, torch.ones(4), 1e-5),
    "a join, and a part of it": lambda x: torch.cat((x, x * 2), -1)[..., 2:6],
    "halves": lambda x: torch.mul(*x.chunk(2, dim=-1)),
    "a split": lambda x: torch.mul(*x.split([2, 2], dim=2)),
    "heads split off and merged": lambda x: x.view(1, -1, 2, 2).transpose(-1, -2).reshape(1, -1, 4),
    "one column": lambda x: x.select(-1, 1),
    "another axis": lambda x: x.unsqueeze(-1) * 2,
    "a softmax": lambda x: x.softmax(-1),
    "a choice": lambda x: torch.where(x > 0, x, 0.5),
    "the larger, and its error function": lambda x: torch.erf(torch.maximum(x, -x)),
    "a mean of each token": lambda x: x - x.mean(-1, keepdim=True),
    "a sum in another dtype": lambda x: x.sum((1, 2), dtype=torch.float64),
    "tokens flattened, and back": lambda x: x.reshape(-1, 4).relu().view(x.shape) + x,
    "heads flattened, and back": lambda x: x + x.reshape(-1, 2).relu().view(x.shape),
    "columns by number": lambda x: x.index_select(-1, torch.tensor([3, 0])),
}


@pytest.mark.parametrize("function", DROPS.values(), ids=DROPS)
def test_the_batch_axis_goes(function):
    given = {"x": torch.randn(6)}

    def rows(x):
        return function(x.unsqueeze(0).unsqueeze(-1) * torch.tensor([1.0, 2.0, 3.0, 4.0])).squeeze(0)

    program = captured(rows, given, {"x": "tokens"})
    clean(program)
    before = run_program(program, given)
    assert drop_batch(program) > 0
    assert_close(run_program(program, given), before)
    assert not [node for node in program.graph.nodes if node.target == aten.unsqueeze.default and node.args[1] == 0]


def test_an_operator_without_a_rule_keeps_it():
    given = {"x": torch.randn(6)}
    program = captured(lambda x: (x.unsqueeze(0).abs().cumsum(0) * 2).squeeze(0), given, {"x": "tokens"})
    before = run_program(program, given)
    drop_batch(program)
    assert_close(run_program(program, given), before)
    (node,) = (node for node in program.graph.nodes if node.target == aten.cumsum.default)
    assert node.meta["val"].dim() == 2
    (product,) = (node for node in program.graph.nodes if node.target == aten.mul.Tensor)
    assert product.meta["val"].dim() == 1


@pytest.mark.parametrize(
    ("function", "rows"),
    [
        (lambda x, y: x.unsqueeze(0) + y, 3),
        (lambda x, y: torch.stack((x.unsqueeze(0), y), 1), 1),
        (lambda x, y: x.unsqueeze(0).mul(2).sum((0, 1), keepdim=True) * y, 1),
        (lambda x, y: x.unsqueeze(0).mul(2).amax() * y, 1),
    ],
)
def test_what_spreads_over_the_batch_keeps_it(function, rows):
    given = {"x": torch.randn(6), "y": torch.randn(rows, 6)}
    program = captured(function, given, {"x": "tokens", "y": ". tokens"})
    before = run_program(program, given)
    drop_batch(program)
    assert_close(run_program(program, given), before)
