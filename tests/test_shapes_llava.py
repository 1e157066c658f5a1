"""The whole way, with the bundled, trained LLaVA: from its checkpoint to answers, beside Hugging Face."""

from __future__ import annotations

import pytest
import torch

from ditto import LlavaModel
from ditto.reference import RELATIVE_ERROR, relative_error
from ditto.runtime import Request, open_session
from ditto.runtime.reference import ReferenceSession
from ditto.runtime.session import ScheduledRow
from ditto.text.pipeline import GenerationPipeline
from tests.support.images import features
from tests.support.models import image_features
from tests.support.shapes import one_of_each_kind

BUILDS = (("float32", "embedded"), ("float16", "embedded"), ("float16", "external"))


@pytest.fixture(scope="module", params=BUILDS, ids=" with weights ".join)
def tree(request, shapes_checkpoint, tmp_path_factory):
    dtype, weights = request.param
    model = LlavaModel.from_pretrained(str(shapes_checkpoint)).with_batch(4).with_dtype(dtype).with_weights(weights)
    return model.build_all(tmp_path_factory.mktemp("trees") / "tree")


@pytest.fixture(scope="module")
def pipeline(tree):
    return GenerationPipeline(open_session(tree, "reference"))


def test_hugging_face_itself_answers_right(asked, expected, hugging_face):
    _, questions = asked
    texts = [hugging_face.processor.tokenizer.decode(tokens, skip_special_tokens=True).strip() for tokens in expected]
    right = sum(text == question.truth for text, question in zip(texts, questions, strict=True))
    assert right >= 0.95 * len(questions)
    assert {question.kind for question in questions} == {
        "describe",
        "count",
        "count of a color",
        "color",
        "place",
        "size",
    }


def test_tokens_are_those_of_hugging_face_one_at_a_time(pipeline, asked, expected):
    images, questions = asked
    for number in one_of_each_kind(questions):
        question = questions[number]
        reply = pipeline.answer([question.prompt], [images[question.image]], max_new_tokens=64)
        assert reply.tokens == (expected[number],), question


def test_tokens_are_those_of_hugging_face_in_batches_of_different_lengths(pipeline, asked, expected):
    images, questions = asked
    lengths: set[int] = set()
    for start in range(0, len(questions), 4):
        part, wanted = questions[start : start + 4], expected[start : start + 4]
        reply = pipeline.answer(
            [question.prompt for question in part],
            [images[question.image] for question in part],
            max_new_tokens=64,
        )
        assert reply.tokens == tuple(wanted), part
        lengths.add(len({len(question.prompt) for question in part}))
    assert max(lengths) > 1


def test_features_are_those_of_hugging_face(tree, asked, hugging_face):
    images, _ = asked
    session = ReferenceSession(tree)
    pixels = torch.cat([hugging_face.inputs(image, "<image>")["pixel_values"] for image in images])
    wanted = image_features(hugging_face.model, pixels)
    dtype = getattr(torch, tree.manifest.components["vision"].spec.dtype)
    found = features(session, pixels)
    assert relative_error(found, wanted) <= RELATIVE_ERROR[dtype]


def test_logits_are_those_of_hugging_face(tree, asked, hugging_face):
    images, questions = asked
    session = ReferenceSession(tree)
    dtype = getattr(torch, tree.manifest.components["llm"].spec.dtype)
    for question in questions[:12]:
        given = hugging_face.inputs(images[question.image], question.prompt)
        with torch.no_grad():
            wanted = hugging_face.model(**given).logits[0, -1]
        ids = given["input_ids"][0].to(torch.int32)
        places = ids == hugging_face.model.config.image_token_index
        ids[places] = session.tokens.vocab_size + torch.arange(int(places.sum()), dtype=torch.int32)
        rows = features(session, given["pixel_values"]).flatten(0, 1)
        each = ScheduledRow(0, Request(tuple(ids.tolist()), rows), past=0)
        logits = session.start(1).step([each], torch.zeros(1, dtype=torch.int64))
        assert relative_error(logits[0], wanted) <= RELATIVE_ERROR[dtype]
