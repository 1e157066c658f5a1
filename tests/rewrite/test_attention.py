"""Torch's own attention becomes ours, with all that it says."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from ditto.errors import ModelError
from ditto.ops.attention import visible
from ditto.rewrite.attention import recognise_sdpa
from tests.support.layers import FLOATS
from tests.support.programs import captured, operators
from tests.support.rewriting import check_applies, check_misses

_attention = torch.ops.ditto.attention.default

_RANDOM = torch.Generator().manual_seed(0)
Q, K, V = (torch.randn(2, heads, 5, 8, generator=_RANDOM) for heads in (4, 4, 4))
BOOL = visible(5, 2)
ADDED = torch.randn(2, 4, 5, 5, generator=_RANDOM)

CALLS = {
    "plain": lambda q, k, v: scaled_dot_product_attention(q, k, v),
    "scaled": lambda q, k, v: scaled_dot_product_attention(q, k, v, scale=0.3),
    "causal": lambda q, k, v: scaled_dot_product_attention(q, k, v, is_causal=True),
    "grouped": lambda q, k, v: scaled_dot_product_attention(q, k[:, :2], v[:, :2], enable_gqa=True),
    "grouped, causal": lambda q, k, v: scaled_dot_product_attention(
        q, k[:, :1], v[:, :1], None, 0.0, True, enable_gqa=True
    ),
    "bool mask": lambda q, k, v: scaled_dot_product_attention(q, k, v, attn_mask=BOOL),
    "added mask": lambda q, k, v: scaled_dot_product_attention(q, k, v, attn_mask=ADDED.to(q.dtype)),
}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("function", CALLS.values(), ids=CALLS)
def test_attention_is_recognised(function, dtype):
    inputs = {name: x.to(dtype) for name, x in (("q", Q), ("k", K), ("v", V))}
    program = check_applies(recognise_sdpa, function, inputs)
    assert operators(program)[-1] == _attention


def test_a_dynamic_batch_stays_dynamic():
    names = dict.fromkeys("qkv", "batch")
    program = captured(CALLS["causal"], {"q": Q, "k": K, "v": V}, names)
    assert recognise_sdpa(program) == 1
    assert str(program.spec(program.outputs[0])) == "float32[batch, 4, 5, 8]"


def test_attention_that_drops_weights_is_refused():
    program = captured(lambda q: scaled_dot_product_attention(q, q, q, dropout_p=0.1), {"q": Q})
    with pytest.raises(ModelError) as raised:
        recognise_sdpa(program)
    assert (raised.value.cause, raised.value.remedy) == ("attention drops weights", "call `model.eval()` first")
    assert str(raised.value.where).startswith("programs.py:")


def test_attention_of_another_rank_stays():
    check_misses(recognise_sdpa, lambda q: scaled_dot_product_attention(q, q, q), {"q": Q[0]})


def test_what_is_no_attention_stays():
    check_misses(recognise_sdpa, lambda q, k: (q @ k.transpose(-1, -2)).softmax(-1), {"q": Q, "k": K})


class _Tower(nn.Module):
    """Attention written as CLIP had it before transformers 4.53."""

    def __init__(self):
        super().__init__()
        self.proj = nn.Linear(8, 24)

    def forward(self, x):
        q, k, v = self.proj(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        return scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def test_attention_of_a_module_with_weights_is_recognised():
    check_applies(recognise_sdpa, _Tower().requires_grad_(False), {"x": torch.randn(2, 5, 8)}, names={"x": "batch"})
