"""Packed engines behind the one loop: answers are Hugging Face's, whoever shares the batch."""

from __future__ import annotations

import pytest
import torch

from ditto import LlavaModel, LlmBuilder
from ditto.configs import TrtllmConfig
from ditto.errors import PromptError
from ditto.runtime import Batch, Request, generate, open_session
from ditto.runtime.packed import PackedLimits, PackedSession
from tests.support.greedy import greedy, greedy_with_features
from tests.support.models import TEXT_MODELS, llama, llava
from tests.support.texts import packed_tree

PROMPTS = [[5, 9, 17, 33, 8, 100, 41], [77, 3, 12], [64] * 13, [9, 9, 4, 90] * 5]
COUNTS = [6, 20, 9, 12]


def joined_one_by_one(session, requests, counts, rows):
    """Answers of requests that join one step after another, and who computed in each step."""
    steps: list[list[int]] = []
    with Batch(session, rows) as batch:
        sequences = []
        while batch.busy or len(sequences) < len(requests):
            if len(sequences) < len(requests):
                sequences.append(batch.join(requests[len(sequences)], counts[len(sequences)]))
            steps.append([sequence.number for sequence in batch.step()])
    return [tuple(sequence.made) for sequence in sequences], steps


@pytest.mark.drawn(5)
@pytest.mark.parametrize("name", TEXT_MODELS)
def test_tokens_are_those_of_hugging_face(name, tmp_path):
    model = TEXT_MODELS[name]()
    if name.startswith("gemma"):
        model.config._attn_implementation = "eager"
    session = open_session(packed_tree(model, tmp_path / "tree"), "reference")
    requests = [Request(tuple(prompt)) for prompt in PROMPTS]
    found, steps = joined_one_by_one(session, requests, COUNTS, rows=2)
    assert found == [greedy(model, prompt, count) for prompt, count in zip(PROMPTS, COUNTS, strict=True)]
    assert [0, 1] in steps and max(map(len, steps)) == 2


def test_a_tree_of_packed_engines_opens_as_such(tmp_path):
    session = open_session(packed_tree(llama(), tmp_path / "tree"))
    assert isinstance(session, PackedSession)
    assert session.name == "reference"


@pytest.fixture(scope="module")
def seeing(tmp_path_factory):
    """A tiny LLaVA of 16 rows per image, and its session: 2 images for each of 3 requests."""
    model = llava(text={"max_position_embeddings": 128})
    builder = LlavaModel.from_model(model).with_batch(3).with_target("trtllm").with_prompt_table(100)
    return model, open_session(builder.build_all(tmp_path_factory.mktemp("packed") / "tree"), "reference")


def test_each_request_keeps_its_own_images_while_its_place_in_the_batch_changes(seeing):
    model, session = seeing
    torch.manual_seed(1)
    features = torch.randn(4, 16, 64)
    rows = [
        [9, *range(128, 144), 7],
        [5, *range(128, 144), 8, *range(144, 160)],
        [11, 12, 13],
        [*range(128, 144), 3, 4],
    ]
    images = [features[0], torch.cat([features[1], features[2]]), None, features[3]]
    requests = [Request(tuple(ids), part) for ids, part in zip(rows, images, strict=True)]
    found, steps = joined_one_by_one(session, requests, [4, 9, 7, 5], rows=3)
    wanted = zip(rows, images, [4, 9, 7, 5], strict=True)
    assert found == [greedy_with_features(model, ids, part, count) for ids, part, count in wanted]
    assert [0, 1, 2] in steps and [1, 2, 3] in steps  # the place of 1 changes when 0 leaves


def test_a_request_has_its_share_of_the_prompt_table_and_no_more(seeing):
    _, session = seeing
    assert session.limits.prompt_rows_per_request == 33
    ids = tuple(range(128, 162))
    with pytest.raises(PromptError, match="images of prompt 1 need 34 rows .* are 33 for each") as caught:
        generate(session, [Request(ids, torch.zeros(34, 64))], 1)
    assert "--prompt-table of at least 102" in str(caught.value)
    assert generate(session, [Request(ids[:33], torch.zeros(33, 64))], 1)


def test_prompts_wait_for_a_step_with_room_for_their_tokens(tmp_path):
    model = llama()
    builder = LlmBuilder.from_model(model).with_batch(3).with_target("trtllm")
    builder = builder.with_max_input_len(16).with_max_num_tokens(16)
    session = open_session(builder.build(tmp_path / "tree"), "reference")
    prompts, counts = [PROMPTS[2], PROMPTS[1], PROMPTS[2]], [3, 3, 3]
    requests = [Request(tuple(prompt)) for prompt in prompts]
    with Batch(session, 3) as batch:
        sequences = [batch.join(request, 3) for request in requests]
        steps = []
        while batch.busy:
            steps.append([sequence.number for sequence in batch.step()])
    assert steps[:3] == [[0, 1], [0, 1, 2], [0, 1, 2]]
    assert [tuple(sequence.made) for sequence in sequences] == [
        greedy(model, prompt, count) for prompt, count in zip(prompts, counts, strict=True)
    ]
    with pytest.raises(PromptError, match="prompt 1 has 20 tokens, the engine accepts 16"):
        generate(session, [Request(tuple(PROMPTS[3]))], 1)


def test_limits_are_read_from_the_tree(tmp_path):
    limits = PackedLimits.of(packed_tree(llama(), tmp_path / "tree"))
    assert (limits.max_batch_size, limits.max_seq_len, limits.max_num_tokens) == (3, 64, 3 * 64)
    assert limits.prompt_rows_per_request == 0


def test_a_prompt_that_is_computed_whole_is_no_longer_than_a_step(tmp_path):
    """Half precision could take it in parts, which this session does not."""
    builder = LlmBuilder.from_model(llama()).with_batch(3).with_target("trtllm").with_dtype("float16")
    builder = builder.with_trtllm(TrtllmConfig(tokens_per_block=16)).with_max_num_tokens(16)
    limits = PackedLimits.of(builder.build(tmp_path / "tree"))
    assert (limits.max_num_tokens, limits.max_input_len) == (16, 16)
