"""Generation is Hugging Face's greedy search, for rows of different lengths and images."""

from __future__ import annotations

import pytest
import torch

from ditto import LlmBuilder
from ditto.errors import PromptError
from ditto.runtime import Batch, Request, generate, open_session
from ditto.runtime.session import LlmRunner
from tests.support.greedy import greedy, greedy_with_features
from tests.support.models import TEXT_MODELS, llama, llava
from tests.support.trees import llava_tree

PROMPTS = [[5, 9, 17, 33, 8, 100, 41], [77, 3, 12], [64] * 13]


@pytest.mark.parametrize("name", ["llama", "mistral with a window", "gemma2 with soft-caps and windows", "qwen3"])
def test_tokens_are_those_of_hugging_face(name, tmp_path):
    model = TEXT_MODELS[name]()
    if name.startswith("gemma"):
        model.config._attn_implementation = "eager"
    tree = LlmBuilder.from_model(model).with_batch(3).with_target("tensorrt-rtx").build(tmp_path / "tree")
    answers = generate(open_session(tree, "reference"), [Request(tuple(prompt)) for prompt in PROMPTS], 16)
    assert [answer.ids for answer in answers] == [greedy(model, prompt, 16) for prompt in PROMPTS]


def test_a_row_ends_at_its_end_token_while_others_go_on(tmp_path):
    model = llama()
    wanted = [greedy(model, prompt, 12, eos_token_id=None) for prompt in PROMPTS]
    end = wanted[0][3]
    model.generation_config.eos_token_id = end
    tree = LlmBuilder.from_model(model).with_batch(3).with_target("tensorrt-rtx").build(tmp_path / "tree")
    answers = generate(open_session(tree, "reference"), [Request(tuple(prompt)) for prompt in PROMPTS], 12)
    for answer, tokens in zip(answers, wanted, strict=True):
        stop = tokens.index(end) + 1 if end in tokens else len(tokens)
        assert answer.ids == tokens[:stop]
    assert len(answers[0].ids) <= 4


def test_rows_with_different_numbers_of_images_share_one_table(tmp_path):
    model = llava(text={"max_position_embeddings": 128})
    tree = llava_tree(tmp_path / "tree", batch=3, text={"max_position_embeddings": 128})
    session = open_session(tree, "reference")
    torch.manual_seed(1)
    features = torch.randn(3, 16, 64)
    rows = [[9, *range(128, 144), 7], [5, *range(128, 144), 8, *range(144, 160)], [11, 12, 13]]
    images = [features[0], torch.cat([features[1], features[2]]), None]
    requests = [Request(tuple(ids), rows_of) for ids, rows_of in zip(rows, images, strict=True)]
    answers = generate(session, requests, 8)
    for ids, rows_of, answer in zip(rows, images, answers, strict=True):
        assert answer.ids == greedy_with_features(model, ids, rows_of, 8)


def test_requests_join_and_leave_between_steps(tmp_path):
    model = llama()
    prompts = [*PROMPTS, [9, 9, 4], [120, 5, 60, 61, 62]]
    counts = [3, 9, 5, 4, 7]
    tree = LlmBuilder.from_model(model).with_batch(2).with_target("tensorrt-rtx").build(tmp_path / "tree")
    batch = Batch(open_session(tree, "reference"), rows=2)
    sequences = [batch.join(Request(tuple(prompts[0])), counts[0])]
    in_flight: list[list[int]] = []
    while batch.busy or len(sequences) < len(prompts):
        in_flight.append([sequence.number for sequence in batch.step()])
        if len(sequences) < len(prompts):
            sequences.append(batch.join(Request(tuple(prompts[len(sequences)])), counts[len(sequences)]))
    for sequence, prompt, count in zip(sequences, prompts, counts, strict=True):
        assert sequence.done
        assert tuple(sequence.made) == greedy(model, prompt, count)
    assert in_flight[:5] == [[0], [0, 1], [0, 1], [1, 2], [1, 2]]
    assert max(len(numbers) for numbers in in_flight) == 2


def test_a_request_that_is_too_long_does_not_join(llama_tree):
    batch = Batch(open_session(llama_tree, "reference"), rows=2)
    with pytest.raises(PromptError, match="the engine accepts"):
        batch.join(Request(tuple(range(60))), 4)
    assert not batch.busy


@pytest.mark.parametrize("lookahead", [1, 2, 30])
def test_a_host_that_lags_behind_reads_the_same_tokens(lookahead, tmp_path, monkeypatch):
    model = llama()
    wanted = [greedy(model, prompt, 12, eos_token_id=None) for prompt in PROMPTS]
    model.generation_config.eos_token_id = wanted[0][3]
    wanted = [greedy(model, prompt, 12) for prompt in PROMPTS]
    tree = LlmBuilder.from_model(model).with_batch(3).with_target("tensorrt-rtx").build(tmp_path / "tree")
    session = open_session(tree, "reference")
    monkeypatch.setattr(LlmRunner, "lookahead", lookahead)
    answers = generate(session, [Request(tuple(prompt)) for prompt in PROMPTS], 12)
    assert [answer.ids for answer in answers] == wanted
    with Batch(session, 1) as batch:
        sequences = [batch.join(Request(tuple(prompt)), 12) for prompt in PROMPTS]
        assert [batch.step() for _ in range(min(lookahead, 12))] == [[]] * min(lookahead, 12)
        while batch.busy:
            assert len(batch.step()) <= 1
    assert [tuple(sequence.made) for sequence in sequences] == wanted


@pytest.mark.parametrize("lookahead", [0, 2])
def test_a_request_that_leaves_early_makes_room(lookahead, tmp_path, monkeypatch):
    model = llama()
    tree = LlmBuilder.from_model(model).with_batch(1).with_target("tensorrt-rtx").build(tmp_path / "tree")
    monkeypatch.setattr(LlmRunner, "lookahead", lookahead)
    with Batch(open_session(tree, "reference"), 1) as batch:
        first, second, third = (batch.join(Request(tuple(prompt)), 9) for prompt in PROMPTS)
        while len(first.made) < 3:
            batch.step()
        batch.leave(first)
        batch.leave(second)
        while batch.busy:
            batch.step()
    assert tuple(first.made) == greedy(model, PROMPTS[0], 9)[:3]
    assert second.made == []
    assert tuple(third.made) == greedy(model, PROMPTS[2], 9)
