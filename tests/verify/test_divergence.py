"""Values find the modules they stand for: joined and moved layers too, and what has no counterpart is left out."""

from __future__ import annotations

import math

import pytest
import torch

from ditto.reference import RELATIVE_ERROR, relative_error, watching
from ditto.runtime import Request, open_session
from ditto.runtime.weights import network_of
from ditto.verify.divergence import Divergences, _error_in_any_order
from ditto.verify.inputs import Prompts
from ditto.verify.reference_outputs import modules
from ditto.verify.tree import logits
from tests.support.decoding import eager
from tests.support.models import llama

IDS = (5, 9, 31, 7, 4)


def watched(tree, model, own=None):
    seen = modules(eager(model), Prompts(torch.tensor([IDS])))
    made = Divergences("llm", network_of(tree, "llm"), seen, own or seen, 1e-5)
    with watching(made.watch):
        logits(open_session(tree, "reference"), Request(IDS), (1,))
    return made


def test_most_modules_of_a_block_are_compared(llama_tree):
    made = watched(llama_tree, llama())
    assert made.first is None
    texts = {port.text for port in made._ports if port.errors}
    for block in (0, 1):
        for part in (
            "input_layernorm",
            "self_attn.q_proj",
            "self_attn.k_proj",
            "self_attn.o_proj",
            "mlp.gate_proj",
            "mlp.up_proj",
            "mlp.act_fn",
            "mlp.down_proj",
            "post_attention_layernorm",
        ):
            assert f"the output of `model.layers.{block}.{part}`" in texts, (block, part)
        assert f"the input of `model.layers.{block}.self_attn.o_proj`" in texts
    assert "the output of `model.norm`" in texts
    assert "the output of `lm_head`" in texts


def test_the_first_in_order_is_named(llama_tree):
    model = llama()
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight *= 1.05
    found = watched(llama_tree, model).first
    assert found.module.endswith("layers.0.mlp.up_proj") or "up_proj" in found.port
    assert found.port == "the output of `model.layers.0.mlp.up_proj`"
    assert found.source


def test_what_hugging_face_itself_errs_is_allowed(llama_tree):
    model = llama()
    with torch.no_grad():
        for part in model.parameters():
            part *= 1.001
    assert watched(llama_tree, model).first is not None
    own = modules(eager(llama()), Prompts(torch.tensor([IDS])))
    assert watched(llama_tree, model, own).first is None


def test_values_that_are_not_numbers_diverge(llama_tree):
    model = llama()
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[3, 5] = float("nan")
    found = watched(llama_tree, model).first
    assert found.port == "the output of `model.layers.0.mlp.up_proj`"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_tokens_in_another_order_are_near_and_other_tokens_are_not(dtype):
    exact = torch.randn(1, 1500, 96, generator=torch.Generator().manual_seed(1))
    found = exact.flip(1).to(dtype)
    assert relative_error(found, exact) > 1
    assert _error_in_any_order(found, exact) <= RELATIVE_ERROR[dtype]
    found[0, 700] = found[0, 701]
    assert _error_in_any_order(found, exact) > RELATIVE_ERROR[dtype]


def test_tokens_that_are_not_numbers_are_near_nothing():
    exact = torch.randn(40, 16, generator=torch.Generator().manual_seed(1))
    assert _error_in_any_order(torch.full_like(exact, math.nan), exact) == math.inf


def test_a_single_token_has_no_other_order():
    exact = torch.randn(1, 16, generator=torch.Generator().manual_seed(1))
    assert _error_in_any_order(exact * 1.5, exact) == relative_error(exact * 1.5, exact)
