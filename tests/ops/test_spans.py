"""Spans follow from token types as Hugging Face's models compute them."""

from __future__ import annotations

import pytest
import torch

from ditto import ops
from ditto.ops.attention import visible, with_spans
from ditto.ops.spans import SpanRule, together
from tests.support.models import TRANSFORMERS_5

IMAGE = SpanRule("token_type_ids", "image")
IMAGES = SpanRule("mm_token_type_ids", "images")
PROMPT = SpanRule("token_type_ids", "prompt", marked=0)
TYPES = torch.tensor([[1, 1, 0, 1, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0, 0, 0]])


def test_runs_of_marked_tokens_are_spans():
    assert IMAGE.spans(TYPES).tolist() == [[1, 1, 0, 2, 0, 0, 3, 3], [0] * 8]
    assert IMAGES.spans(TYPES).tolist() == TYPES.tolist()
    assert PROMPT.spans(TYPES).tolist() == (1 - TYPES).tolist()


@pytest.mark.skipif(not TRANSFORMERS_5, reason="older versions compute spans in the model's forward")
def test_runs_are_those_of_gemma_3():
    from transformers.models.gemma3.modeling_gemma3 import get_block_sequence_ids_for_mask

    generator = torch.Generator().manual_seed(0)
    types = torch.randint(2, (8, 20), generator=generator)
    assert torch.equal(IMAGE.spans(types), get_block_sequence_ids_for_mask(types).int() + 1)


@pytest.mark.parametrize("rule", [IMAGE, IMAGES, PROMPT])
def test_types_are_the_inverse(rule):
    assert torch.equal(rule.types(rule.spans(TYPES)), TYPES)
    for sample in rule.samples(2, 20):
        assert torch.equal(rule.spans(rule.types(sample)), sample)


def test_samples_differ_in_rows_and_in_lengths_of_spans():
    nothing, whole, mixed = IMAGE.samples(2, 20)
    assert not nothing.any() and bool((whole == 1).all())
    assert [torch.bincount(row).tolist()[1:] for row in mixed] == [[1, 2, 4, 8], [1, 2, 4, 7]]


def test_the_spans_of_a_prompt_follow_from_its_image_tokens():
    is_image = torch.tensor([[False, True, True, False]])
    assert [rule.of_prompt(is_image).tolist() for rule in (IMAGE, PROMPT)] == [[[0, 1, 1, 0]], [[1] * 4]]
    assert IMAGE.continued(torch.tensor([[1, 1]]), 2).tolist() == [[1, 1, 0, 0]]
    assert PROMPT.continued(torch.tensor([[1, 1]]), 2).tolist() == [[1] * 4]


SPANS = torch.tensor([[0, 1, 1, 1, 1, 0, 2, 2], [3, 3, 0, 0, 0, 4, 0, 4]], dtype=torch.int32)


@pytest.mark.parametrize("window", [0, 2, 3])
@pytest.mark.parametrize("whole", [False, True])
def test_tokens_see_their_span_in_both_directions(window, whole):
    """One pair of tokens at a time."""
    seen = with_spans(SPANS, window, whole)
    for row, query, key in torch.cartesian_prod(torch.arange(2), torch.arange(8), torch.arange(8)).tolist():
        same = SPANS[row, query] == SPANS[row, key] != 0
        in_reach = not window or key > query - window
        wanted = (key <= query and in_reach) or same if whole else (key <= query or same) and in_reach
        assert bool(seen[row, 0, query, key]) == bool(wanted)


@pytest.mark.parametrize("window", [0, 3])
@pytest.mark.parametrize("whole", [False, True])
def test_the_operator_masks_by_spans(window, whole):
    x = torch.randn(2, 4, 8, 6, generator=torch.Generator().manual_seed(0))
    found = ops.attention(x, x[:, :2], x[:, 2:], None, None, 0.4, True, window, 0.0, 0, None, SPANS, whole)
    mask = with_spans(SPANS, window, whole)
    assert torch.equal(found, ops.attention(x, x[:, :2], x[:, 2:], mask, None, 0.4, False, 0, 0.0, 0))
    assert not torch.equal(found, ops.attention(x, x[:, :2], x[:, 2:], None, None, 0.4, True, window, 0.0, 0))


def test_text_alone_is_causal():
    assert torch.equal(with_spans(torch.zeros(1, 5).int(), 2)[0, 0], visible(5, 2))
    assert not together(torch.zeros(1, 5).int()).any()
