"""Answers in progress: their text without white space at the ends, why they ended, and errors of one of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ditto.errors import ModelError
from ditto.runtime import GREEDY, open_session
from ditto.text.decoding import LENGTH, STOP, Decoder
from ditto.text.images import load_images
from ditto.text.pipeline import AnswerSettings, GenerationPipeline

PICTURE = Path(__file__).parents[2] / "examples" / "shapes_llava" / "pictures" / "4.png"
DESCRIBE = "USER: <image>\nDescribe this image. ASSISTANT:"


@pytest.fixture(scope="module")
def pipeline(shapes_tree):
    return GenerationPipeline(open_session(shapes_tree, "reference"))


def prepared(pipeline, count=1, **settings):
    encoded = pipeline.processor.encode([DESCRIBE] * count, load_images([PICTURE]))
    return pipeline.prepared(encoded, pipeline.requests(encoded), AnswerSettings(sampling=GREEDY, **settings))


def decoded(pipeline, **settings):
    pieces = []
    with Decoder(pipeline.session, pipeline.tokenizer, 1) as decoder:
        answer = decoder.join(prepared(pipeline, **settings)[0], pieces.append)
        while len(decoder):
            decoder.step()
    assert "".join(pieces) == answer.text and answer.done
    return answer


def test_why_an_answer_ended(pipeline):
    whole = decoded(pipeline, max_new_tokens=40)
    assert whole.finish_reason == STOP and whole.token_ids[-1] in pipeline.session.tokens.end
    assert decoded(pipeline, max_new_tokens=2).finish_reason == LENGTH
    assert decoded(pipeline, max_new_tokens=len(whole.token_ids)).finish_reason == STOP
    stopped = decoded(pipeline, max_new_tokens=40, stops=[whole.text[5:9]])
    assert (stopped.finish_reason, stopped.text) == (STOP, whole.text[:5].rstrip())


def test_white_space_at_the_ends_stays_where_it_is_asked_for(pipeline):
    whole = decoded(pipeline, max_new_tokens=40, strip=False)
    wanted = pipeline.tokenizer.decode(whole.token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert whole.text == wanted
    assert decoded(pipeline, max_new_tokens=40).text == wanted.strip()
    for count in range(1, 6):
        assert (
            decoded(pipeline, max_new_tokens=count).text
            == decoded(pipeline, max_new_tokens=count, strip=False).text.strip()
        )


def test_an_answer_that_fails_leaves_the_others(pipeline, monkeypatch):
    alone = decoded(pipeline, max_new_tokens=6).token_ids
    with Decoder(pipeline.session, pipeline.tokenizer, 2) as decoder:
        first, second = (decoder.join(prompt, lambda piece: None) for prompt in prepared(pipeline, 2, max_new_tokens=6))
        step = decoder._batch._runner.step

        def wrong(scheduled, sampled):
            logits = step(scheduled, sampled)
            logits[[each.row == 0 and each.past > 0 for each in scheduled]] = torch.nan
            return logits

        monkeypatch.setattr(decoder._batch._runner, "step", wrong)
        while len(decoder):
            decoder.step()
    assert isinstance(first.error, ModelError) and first.done and first.finish_reason is None
    assert second.error is None and second.token_ids == alone
