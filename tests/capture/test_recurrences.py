"""Functions that stand in for transformers' own loops give what those give."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch
from torch.testing import assert_close

from ditto.capture.recurrences import gated_delta_rule, selective_scan, semantic_recurrences, state_space_dual
from ditto.errors import UnsupportedFeature
from tests.support.models import TRANSFORMERS_5

pytestmark = pytest.mark.skipif(not TRANSFORMERS_5, reason="these functions came with transformers 5")
RANDOM = torch.Generator().manual_seed(0)


def randn(*shape):
    return torch.randn(*shape, generator=RANDOM)


def own(model, name):
    return getattr(import_module(f"transformers.models.{model}.modeling_{model}"), name)


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("tokens", [1, 9, 70])
def test_the_delta_rule_is_qwen3_nexts(tokens, normalised):
    query, key, value = randn(2, tokens, 4, 6), randn(2, tokens, 4, 6), randn(2, tokens, 4, 5)
    key = key / key.norm(dim=-1, keepdim=True)
    given = query, key, value, -randn(2, tokens, 4).abs(), randn(2, tokens, 4).sigmoid()
    wanted, _ = own("qwen3_next", "torch_chunk_gated_delta_rule")(*given, use_qk_l2norm_in_kernel=normalised)
    found, state = gated_delta_rule(*given, use_qk_l2norm_in_kernel=normalised)
    assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert state is None


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("limit", [(0.0, float("inf")), (0.4, 0.9)])
def test_the_scan_of_mamba_2_is_transformers(groups, limit):
    given = randn(2, 9, 4, 5), randn(2, 9, 4), -randn(4).abs(), randn(2, 9, groups, 3), randn(2, 9, groups, 3)
    more = {"D": randn(4), "dt_bias": randn(4), "dt_softplus": True, "dt_limit": limit}
    wanted = own("mamba2", "mamba2_chunk_scan")(*given, 4, **more)
    wanted = wanted[0] if isinstance(wanted, tuple) else wanted
    assert_close(state_space_dual(*given, 4, **more), wanted.view(2, 9, 4, 5), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("gated", [False, True])
def test_the_scan_of_mamba_is_transformers(gated):
    given = randn(2, 6, 9), randn(2, 6, 9), -randn(6, 3).abs(), randn(2, 3, 9), randn(2, 3, 9)
    more = {"D": randn(6), "z": randn(2, 6, 9) if gated else None, "delta_bias": randn(6), "delta_softplus": True}
    wanted = own("mamba", "mamba_selective_scan")(*given, **more)
    wanted = wanted[0] if isinstance(wanted, tuple) else wanted
    assert_close(selective_scan(*given, **more), wanted, rtol=1e-4, atol=1e-4)


def test_a_state_that_the_model_keeps_itself_is_refused():
    given = [randn(1, 3, 2, 4) for _ in range(3)]
    with pytest.raises(UnsupportedFeature, match="a cache of its own"):
        gated_delta_rule(*given, -randn(1, 3, 2).abs(), randn(1, 3, 2), output_final_state=True)


def test_a_model_that_runs_meanwhile_keeps_its_own_function():
    from transformers import Mamba2Config, Mamba2ForCausalLM

    sizes = {"hidden_size": 16, "num_heads": 4, "head_dim": 8, "state_size": 4, "num_hidden_layers": 1}
    model = Mamba2ForCausalLM(Mamba2Config(**sizes, vocab_size=32, n_groups=1, chunk_size=4)).eval()
    ids = torch.tensor([[3, 4, 5]])
    with torch.no_grad():
        wanted = model(input_ids=ids).logits
        with semantic_recurrences(model):
            assert torch.equal(model(input_ids=ids).logits, wanted)
