"""The bundled, trained LLaVA in TensorRT-LLM's form: its runtime, played on the CPU, gives Hugging Face's answers."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from ditto import LlavaModel
from ditto.configs import TrtllmConfig
from ditto.runtime import Batch, Request, open_session
from ditto.text.pipeline import GenerationPipeline
from tests.support.images import features as embeddings
from tests.support.shapes import one_of_each_kind

BATCH = 4


@pytest.fixture(scope="module", params=[16, 32, 64])
def tree(request, shapes_checkpoint, tmp_path_factory):
    """Blocks of 16 with float16, which chooses the same tokens; the others with float32."""
    builder = LlavaModel.from_pretrained(str(shapes_checkpoint)).with_batch(BATCH).with_target("trtllm")
    builder = builder.with_dtype("float16" if request.param == 16 else "float32")
    out = tmp_path_factory.mktemp("trees") / str(request.param)
    return builder.with_trtllm(TrtllmConfig(tokens_per_block=request.param)).build_all(out)


@pytest.fixture(scope="module")
def pipeline(tree):
    return GenerationPipeline(open_session(tree, "reference"))


def assembled(tree, hugging_face, images, question):
    """A request as TensorRT-LLM's multimodal `run.py` makes it for LLaVA (contract, multimodal 3.1 to 3.3): the text
    before the image, `vocab_size` and the numbers after it, as many as the vision engine's `output_shape` says, the
    text after; all from the two config.json files."""
    rows = tree.config("vision")["builder_config"]["output_shape"][1]
    first = tree.config("llm")["pretrained_config"]["vocab_size"]
    image_token = hugging_face.model.config.image_token_index
    with Image.open(images[question.image]) as image:
        made = hugging_face.processor(text=[question.prompt], images=[image.convert("RGB")], return_tensors="pt")
    ids = made["input_ids"][0].tolist()
    start, end = ids.index(image_token), len(ids) - ids[::-1].index(image_token)
    assert end - start == rows
    return [*ids[:start], *range(first, first + rows), *ids[end:]], made["pixel_values"]


def test_tokens_are_those_of_hugging_face_while_requests_join_and_leave(tree, asked, expected, hugging_face):
    """All images and kinds of questions; requests begin whenever another one has ended."""
    images, questions = asked
    session = open_session(tree, "reference")
    features: dict[int, torch.Tensor] = {}
    begun: list[int] = []
    with Batch(session, BATCH) as batch:
        flights = []
        for question in questions:
            ids, pixels = assembled(tree, hugging_face, images, question)
            if question.image not in features:
                features[question.image] = embeddings(session, pixels).flatten(0, 1)
            flights.append(batch.join(Request(tuple(ids), features[question.image]), 64))
        while batch.busy:
            begun.append(sum(len(flight.made) == 1 for flight in batch.step()))
    assert [tuple(flight.made) for flight in flights] == expected
    assert sum(count == 0 for count in begun) > 20 and sum(0 < count < BATCH for count in begun) > 20


def test_tokens_are_those_of_hugging_face_one_at_a_time(pipeline, asked, expected):
    images, questions = asked
    for number in one_of_each_kind(questions):
        question = questions[number]
        reply = pipeline.answer([question.prompt], [images[question.image]], max_new_tokens=64)
        assert reply.tokens == (expected[number],), question


def test_tokens_are_those_of_hugging_face_in_batches(pipeline, asked, expected):
    images, questions = asked
    for start in range(0, len(questions) // 2, BATCH):  # requests that join and leave are asked all of them
        part, wanted = questions[start : start + BATCH], expected[start : start + BATCH]
        reply = pipeline.answer(
            [question.prompt for question in part],
            [images[question.image] for question in part],
            max_new_tokens=64,
        )
        assert reply.tokens == tuple(wanted), part


def test_ditto_run_answers_from_a_packed_tree(tree, images, hugging_face, capsys):
    from ditto.cli.main import main

    prompt = "USER: <image>\nDescribe this image. ASSISTANT:"
    arguments = ["run", str(tree.root), "--json", "--prompt", prompt, "--image", str(images[0])]
    assert main(arguments) == 0
    reply = json.loads(capsys.readouterr().out)
    assert reply["session"] == "reference"
    assert tuple(reply["tokens"][0]) == hugging_face.tokens(images[0], prompt)
