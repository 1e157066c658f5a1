"""Experts of a Hugging Face model are captured as two operators, and its own code around them stays."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from benchmarks.tiny_models import tiny_model
from ditto.builders.llm import LlmBuilder
from ditto.capture import experts, export
from ditto.capture.experts import experts_function
from ditto.errors import UnsupportedFeature
from tests.support.models import TRANSFORMERS_5

own = torch.ops.ditto
X, CHOSEN, SHARES = torch.randn(3, 4), torch.tensor([[0, 1], [1, 2], [2, 0]]), torch.rand(3, 2)
FACTS = {"has_gate": True, "has_bias": False, "has_post_expert_norm": False, "_is_expert_parallel": False}


def _experts(**facts):
    return SimpleNamespace(
        **{**FACTS, "is_transposed": False, **facts},
        gate_up_proj=torch.randn(3, 12, 4),
        up_proj=torch.randn(3, 6, 4),
        up_proj_bias=torch.randn(3, 6),
        down_proj=torch.randn(3, 4, 6),
        down_proj_bias=torch.randn(3, 4),
        act_fn=torch.relu,
        _apply_gate=lambda x: x[..., :6].sigmoid() * x[..., 6:],
    )


def _one_by_one(experts):
    result = torch.zeros(3, 4)
    for token in range(3):
        for expert, share in zip(CHOSEN[token].tolist(), SHARES[token], strict=True):
            if experts.has_gate:
                inner = experts._apply_gate(experts.gate_up_proj[expert] @ X[token])
            else:
                inner = experts.act_fn(experts.up_proj[expert] @ X[token] + experts.up_proj_bias[expert])
            outer = experts.down_proj[expert] @ inner
            result[token] += share * (outer + experts.down_proj_bias[expert] if experts.has_bias else outer)
    return result


@pytest.mark.parametrize("facts", [{}, {"has_gate": False, "has_bias": True}])
def test_experts_are_two_linear_layers_with_the_models_activation_in_between(facts):
    experts = _experts(**facts)
    torch.testing.assert_close(experts_function(experts, X, CHOSEN, SHARES), _one_by_one(experts))


@pytest.mark.parametrize("fact", ["has_post_expert_norm", "_is_expert_parallel"])
def test_experts_that_do_more_are_refused(fact):
    with pytest.raises(UnsupportedFeature, match="normalises the result of each expert, or spreads"):
        experts_function(_experts(**{fact: True}), X, CHOSEN, SHARES)


def _captured(model_type):
    builder = LlmBuilder.from_model(tiny_model(model_type)).with_target("tensorrt-rtx").with_max_seq_len(32)
    part = builder.part(builder.resolved_target())
    return export(part.wrapper, part.inputs, part.output_names, part.prefix, part.dtype, 32)


# transformers 4 has no registry of experts: its models loop over them.
MODELS = ("mixtral", "gpt_oss", "granitemoe") if TRANSFORMERS_5 else ()


@pytest.mark.skipif(not TRANSFORMERS_5, reason="transformers 4 has other classes of these experts")
@pytest.mark.parametrize("model_type", ["dbrx", "longcat_flash"])
def test_loops_over_experts_are_what_they_compute(model_type):
    (part, *_) = (part for part in tiny_model(model_type).modules() if type(part).__name__.endswith("Experts"))
    tokens = torch.randn(1, 7, 128) if model_type == "dbrx" else torch.randn(7, 128)
    every = part.num_experts if model_type == "dbrx" else part.total_experts
    chosen = torch.stack([torch.randperm(every)[:2] for _ in range(7)])
    chosen[0, 0], shares = every - 1, torch.rand(7, 2)
    wanted = part(tokens, chosen, shares)
    experts.use_semantic_experts(part)
    assert "forward" in vars(part)
    torch.testing.assert_close(part(tokens, chosen, shares), wanted)


@pytest.mark.parametrize("model_type", MODELS)
def test_each_layers_experts_are_captured(model_type):
    targets = [node.target for node in _captured(model_type).graph.nodes]
    assert targets.count(own.expert_linear.default) == targets.count(own.expert_sum.default) == 2
    assert targets.count(torch.ops.aten.topk.default) == 2
