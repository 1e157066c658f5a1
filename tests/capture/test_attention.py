"""Hugging Face's attention and masks arrive as one operator, with everything the model says about them."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from ditto import ops
from ditto.capture.attention import (
    IMPLEMENTATION,
    attention_function,
    mask_function,
    register,
    use_semantic_attention,
)
from ditto.errors import ModelError, UnsupportedFeature
from ditto.ops.attention import visible
from tests.support.models import TRANSFORMERS_5, llama, llava

BATCH, HEADS, GROUPS, LENGTH, WIDTH = 2, 4, 2, 5, 8

new_masks = pytest.mark.skipif(not TRANSFORMERS_5, reason="transformers before 4.53 has no registry of masks")


def _operands():
    generator = torch.Generator().manual_seed(0)
    shapes = [(BATCH, heads, LENGTH, WIDTH) for heads in (HEADS, GROUPS, GROUPS)]
    return [torch.randn(shape, generator=generator) for shape in shapes]


class _Layer(nn.Module):
    """What an attention function may know of the module that calls it."""

    def __init__(self, **facts):
        super().__init__()
        for name, fact in facts.items():
            setattr(self, name, fact)


MASK = visible(LENGTH, 2)[None, None].expand(BATCH, -1, -1, -1)

# What the model says → mask, sinks, scale, causal, window, softcap, layer of the operator.
SAYINGS = {
    "nothing": ({}, {}, (None, None, WIDTH**-0.5, True, 0, 0.0, 0)),
    "a scale": ({}, {"scaling": 0.3}, (None, None, 0.3, True, 0, 0.0, 0)),
    "its layer": ({"layer_idx": 3}, {}, (None, None, WIDTH**-0.5, True, 0, 0.0, 3)),
    "a layer without index": ({"layer_idx": None}, {}, (None, None, WIDTH**-0.5, True, 0, 0.0, 0)),
    "not causal": ({"is_causal": False}, {}, (None, None, WIDTH**-0.5, False, 0, 0.0, 0)),
    "not causal in the call": ({"is_causal": True}, {"is_causal": False}, (None, None, WIDTH**-0.5, False, 0, 0.0, 0)),
    "a window": ({}, {"sliding_window": 2}, (None, None, WIDTH**-0.5, True, 2, 0.0, 0)),
    "a window of a tower": ({"is_causal": False}, {"sliding_window": 2}, (None, None, WIDTH**-0.5, False, 0, 0.0, 0)),
    "a soft-cap": ({}, {"softcap": 1.5}, (None, None, WIDTH**-0.5, True, 0, 1.5, 0)),
    "sinks": ({}, {"s_aux": torch.ones(HEADS)}, (None, torch.ones(HEADS), WIDTH**-0.5, True, 0, 0.0, 0)),
    "a mask": ({}, {"attention_mask": MASK}, (MASK, None, WIDTH**-0.5, False, 0, 0.0, 0)),
    "a mask and a window": (
        {"is_causal": True},
        {"attention_mask": MASK, "sliding_window": 3, "is_causal": True},
        (MASK, None, WIDTH**-0.5, False, 0, 0.0, 0),
    ),
}


@pytest.mark.parametrize(("facts", "said", "wanted"), SAYINGS.values(), ids=SAYINGS)
def test_what_a_model_says_reaches_the_operator(facts, said, wanted):
    found, weights = attention_function(_Layer(**facts), *_operands(), said.pop("attention_mask", None), **said)
    assert weights is None
    assert torch.equal(found, ops.attention(*_operands(), *wanted).transpose(1, 2))


def test_arguments_without_effect_are_accepted():
    said = {"position_ids": torch.zeros(1), "cache_position": 1, "use_cache": True, "position_bias": None}
    attention_function(_Layer(), *_operands(), None, **said)


def test_arguments_that_are_not_known_are_refused_by_name():
    with pytest.raises(UnsupportedFeature) as raised:
        attention_function(_Layer(), *_operands(), None, position_bias=torch.zeros(1), alibi=2, softcap=None)
    assert raised.value.cause == "_Layer gives its attention alibi, position_bias, which Ditto does not know"
    assert raised.value.remedy == "if it does not change the result, name it in `ditto/capture/attention.py`"


def test_segments_become_a_mask_and_boundaries_have_no_effect():
    segments = torch.tensor([0, 0, 1, 1, 2])
    seen = (segments[:, None] == segments)[None, None]
    said = {"is_causal": False, "cu_seq_lens_q": torch.zeros(2), "max_length_q": 0}
    for given, mask in (({"segments": segments}, seen), ({}, None)):
        found, _ = attention_function(_Layer(), *_operands(), None, **said, **given)
        assert torch.equal(
            found, ops.attention(*_operands(), mask, None, WIDTH**-0.5, False, 0, 0.0, 0).transpose(1, 2)
        )


def test_dropped_weights_are_refused():
    with pytest.raises(ModelError) as raised:
        attention_function(_Layer(), *_operands(), None, dropout=0.1)
    assert (raised.value.cause, raised.value.remedy) == ("_Layer drops attention weights", "call `model.eval()` first")


def _causal(batch, head, query, key):
    return key <= query


def _window(batch, head, query, key):
    return (key <= query) & (key > query - 2)


@pytest.mark.parametrize(("function", "window"), [(_causal, 0), (_window, 2)])
def test_masks_are_expanded_for_every_query_and_key(function, window):
    mask = mask_function(BATCH, LENGTH, LENGTH, mask_function=function)
    assert (mask.dtype, mask.shape[1:]) == (torch.bool, (1, LENGTH, LENGTH))
    assert all(torch.equal(row[0], visible(LENGTH, window)) for row in mask)


def test_masks_respect_offsets_and_padding():
    padding = torch.tensor([[0, 1, 1, 1, 1], [1, 1, 1, 1, 0]])
    mask = mask_function(BATCH, 2, LENGTH, q_offset=3, mask_function=_causal, attention_mask=padding)
    for row, seen in zip(mask, padding):
        assert torch.equal(row[0], visible(LENGTH)[3:] & seen.bool())
    shifted = mask_function(1, 2, 2, q_offset=1, kv_offset=1, mask_function=_causal)
    assert torch.equal(shifted[0, 0], visible(2))


@new_masks
@pytest.mark.parametrize("padded", [False, True])
def test_masks_are_those_that_hugging_face_makes_for_sdpa(padded):
    from transformers import masking_utils

    functions = {
        "causal": masking_utils.causal_mask_function,
        "window": masking_utils.sliding_window_causal_mask_function(3),
        "full": masking_utils.bidirectional_mask_function,
    }
    padding = torch.tensor([[False, True, True, True, True], [True, True, True, True, False]]) if padded else None
    for name, function in functions.items():
        given = {"mask_function": function, "attention_mask": padding, "q_offset": 0, "kv_offset": 0}
        wanted = masking_utils.sdpa_mask(BATCH, LENGTH, LENGTH, allow_is_causal_skip=False, **given)
        found = mask_function(BATCH, LENGTH, LENGTH, **given)
        assert torch.equal(found.expand_as(wanted), wanted), name


@pytest.mark.parametrize("make", [llama, llava], ids=["llama", "llava"])
def test_models_call_attention_by_our_name(make):
    model, ids = make(), torch.tensor([[3, 5, 8, 13, 21], [1, 2, 3, 4, 5]])
    wanted = model(ids).logits
    register()
    register()
    use_semantic_attention(model)
    configs = [
        part.config for part in model.modules() if hasattr(getattr(part, "config", None), "_attn_implementation")
    ]
    assert configs
    assert {config._attn_implementation for config in configs} == {IMPLEMENTATION}
    with _Counted() as counted:
        assert_close(model(ids).logits, wanted, rtol=1e-4, atol=1e-5)
    assert counted.attentions == 2


class _Counted(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts the calls of our attention operator."""

    attentions = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.attentions += function is torch.ops.ditto.attention.default
        return function(*args, **(kwargs or {}))
