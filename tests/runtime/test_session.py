"""Limits are read from the tree; a session refuses what they exclude."""

from __future__ import annotations

import pytest
import torch
from attrs import evolve

from ditto import EngineTree
from ditto.errors import PromptError, TreeError
from ditto.runtime import Request, generate, open_session
from ditto.runtime.encoding import TokenPositions
from ditto.runtime.session import RequestLimits

LIMITS = RequestLimits(
    max_batch_size=2, max_input_len=8, max_seq_len=12, max_prompt_embedding_table_size=4, vocab_size=10
)


def test_a_batch_within_the_limits_is_accepted():
    LIMITS.check([Request(tuple(range(8))), Request((1, 9, 10, 13), torch.zeros(4, 3))], 4)


@pytest.mark.parametrize(
    ("requests", "count", "message"),
    [
        ([], 1, "there is no prompt"),
        ([Request((1,))] * 3, 1, "3 prompts are more than the engine's batch of 2"),
        ([Request((1,)), Request(())], 1, "prompt 2 is empty"),
        ([Request(tuple(range(9)))], 1, "prompt 1 has 9 tokens, the engine accepts 8"),
        ([Request(tuple(range(8)))], 5, "prompt 1 has 8 tokens; with 5 new ones that is more than the engine's 12"),
        ([Request((1,), torch.zeros(3, 2)), Request((1,), torch.zeros(2, 2))], 1, "need 5 rows of the prompt table"),
        ([Request((1, 10))], 1, "prompt 1 holds token 10; the model's tokens go from 0 to 9\n"),
        ([Request((1,)), Request((-1,))], 1, "prompt 2 holds token -1; the model's tokens go from 0 to 9\n"),
        ([Request((13, 14), torch.zeros(4, 2))], 1, "holds token 14; .* from 0 to 9, and with its images' .* to 13"),
        ([Request((1,))], 0, "0 new tokens were asked for"),
    ],
)
def test_what_is_more_than_the_engine_takes_is_refused(requests, count, message):
    with pytest.raises(PromptError, match=message) as caught:
        LIMITS.check(requests, count)
    assert caught.value.remedy or message.endswith("empty")


def test_a_prompt_with_a_token_that_the_model_does_not_count_is_refused():
    evolve(LIMITS, uncounted=9).check([Request((5, 8))], 1)
    with pytest.raises(PromptError, match="prompt 1 holds the padding token 9, which the model does not count"):
        evolve(LIMITS, uncounted=9).check([Request((5, 9, 6))], 1)


def test_positions_need_as_many_axes_as_the_engine_has():
    features, one, three = torch.zeros(1, 3), *(TokenPositions(torch.zeros(axes, 2).int(), 0) for axes in (1, 3))
    several = evolve(LIMITS, position_axes=3)
    LIMITS.check([Request((1, 10), features)], 1)
    several.check([Request((1, 10), features, positions=three), Request((1, 2))], 1)
    several.check([Request((1, 2), positions=three)], 1)
    with pytest.raises(PromptError, match=r"are \[3, 2\], the engine expects indices"):
        LIMITS.check([Request((1, 2), positions=three)], 1)
    for request in (Request((1, 10), features), Request((1, 2), positions=one), Request((1,), positions=three)):
        with pytest.raises(PromptError, match="the positions of prompt 1 are .*, the engine expects \\[3, "):
            several.check([request], 1)


def test_requests_with_images_need_spans_where_the_engine_has_them():
    features, spans = torch.zeros(1, 3), torch.zeros(2, dtype=torch.int32)
    with_spans = evolve(LIMITS, has_spans=True)
    with_spans.check([Request((1, 10), features, spans=spans), Request((1, 2))], 1)
    with_spans.check([Request((1, 2), spans=spans)], 1)
    for limits, request in (
        (with_spans, Request((1, 10), features)),
        (with_spans, Request((1,), spans=spans)),
        (LIMITS, Request((1, 2), spans=spans)),
    ):
        with pytest.raises(PromptError, match="prompt 1 has span ids of .* tokens, the engine expects"):
            limits.check([request], 1)


def test_limits_are_read_from_the_manifest_alone(llama_tree, monkeypatch):
    """config.json is for TensorRT-LLM."""
    monkeypatch.setattr(EngineTree, "config", lambda *_: pytest.fail("config.json was read"))
    stated = RequestLimits.of(llama_tree)
    assert stated == RequestLimits(
        max_batch_size=2, max_input_len=32, max_seq_len=64, max_prompt_embedding_table_size=0, vocab_size=128
    )
    assert generate(open_session(llama_tree, "reference"), [Request((5, 6))], 2)


def test_a_tree_without_language_model_cannot_be_run(tmp_path):
    from ditto import LlavaModel
    from tests.support.models import llava

    tree = LlavaModel.from_model(llava()).with_target("tensorrt-rtx").vision.build(tmp_path / "tree")
    with pytest.raises(TreeError, match="has no llm engine"):
        open_session(tree)
