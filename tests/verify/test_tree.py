"""A tree's logits and tokens, position by position and in batches that fit."""

from __future__ import annotations

import torch

from ditto.runtime import Request, open_session
from ditto.verify.inputs import Prompts
from ditto.verify.tree import answers, logits, requests_of
from tests.support.models import llama


def test_logits_are_those_of_each_prefix(llama_tree):
    session = open_session(llama_tree, "reference")
    model, ids, tokens = llama(), (5, 9, 31), (11, 12, 13)
    found = logits(session, Request(ids), tokens)
    assert found.shape == (3, 128)
    for count in range(3):
        with torch.no_grad():
            wanted = model(torch.tensor([[*ids, *tokens[:count]]])).logits[0, -1]
        assert torch.allclose(found[count], wanted, atol=1e-4)


def test_image_tokens_become_rows(llava_tree):
    session = open_session(llava_tree, "reference")
    image, first = session.tokens.image, session.tokens.vocab_size
    features = torch.randn(6, 8)
    ids = torch.tensor([[4, image, image, image, 5, image, image, image]])
    (made,) = requests_of(session, Prompts(ids), features)
    assert made.ids == (4, first, first + 1, first + 2, 5, first + 3, first + 4, first + 5)
    assert torch.equal(made.features, features)


def test_each_row_counts_its_features_from_zero(llava_tree):
    session = open_session(llava_tree, "reference")
    image, first = session.tokens.image, session.tokens.vocab_size
    features = torch.randn(4, 8)
    ids = torch.tensor([[4, image, image, 9], [image, image, 5, 6]])
    one, other = requests_of(session, Prompts(ids), features)
    assert one.ids == (4, first, first + 1, 9)
    assert other.ids == (first, first + 1, 5, 6)
    assert torch.equal(torch.cat([one.features, other.features]), features)


def test_more_requests_than_a_batch(llama_tree):
    session = open_session(llama_tree, "reference")
    requests = [Request((5 + number, 7)) for number in range(5)]
    assert session.limits.max_batch_size == 2
    together = answers(session, requests, 3)
    assert together == [answers(session, [request], 3)[0] for request in requests]


def test_images_share_the_table(llava_tree):
    session = open_session(llava_tree, "reference")
    rows = session.limits.max_prompt_embedding_table_size
    first = session.tokens.vocab_size
    width = llava_tree.decoder.hidden_size
    full = Request((*range(first, first + rows), 5), torch.randn(rows, width))
    assert len(answers(session, [full, full], 2)) == 2
