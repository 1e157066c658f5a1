"""A loaded model answers as Hugging Face does, from any thread; what it cannot do is one clear error."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

import ditto
from ditto.errors import BusyError, ConfigError, DittoError, PromptError
from ditto.text.model import Model, load

DESCRIBE = "USER: <image>\nDescribe this image. ASSISTANT:"


def ask(image, text="Describe this image."):
    return [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": text}]}]


@pytest.fixture(scope="module")
def model(shapes_tree):
    with load(shapes_tree) as model:
        yield model


def test_the_public_door_opens_a_directory_and_a_tree(shapes_tree):
    assert ditto.load is load and ditto.Model is Model
    with ditto.load(str(shapes_tree.root)) as one, shapes_tree.load(session="reference", rows=1) as other:
        assert (one.session, one.scheduler.rows, other.scheduler.rows) == ("reference", 2, 1)
        assert one.has_chat_template
        assert "llava, reference session" in repr(one)


def test_answers_are_those_of_hugging_face(model, hugging_face, images):
    wanted = hugging_face.tokens(images[3], DESCRIBE)
    (found,) = model.generate([DESCRIBE], [images[3]])
    assert found.token_ids == wanted
    assert found.text == hugging_face.processor.tokenizer.decode(wanted, skip_special_tokens=True).strip()
    given = hugging_face.inputs(images[3], DESCRIBE)
    assert (found.finish_reason, found.prompt_tokens) == ("stop", given["input_ids"].shape[1])
    assert found.completion_tokens == len(wanted)
    assert set(found.seconds) == {"preprocess", "queue", "vision", "first_token", "total"}
    assert found.seconds["total"] >= found.seconds["first_token"] > 0
    assert model.chat(ask(images[3])).token_ids == wanted
    (short,) = model.generate([DESCRIBE], [images[3]], max_new_tokens=3)
    assert (short.token_ids, short.finish_reason) == (wanted[:3], "length")


def test_images_may_be_files_and_in_memory(model, images):
    with Image.open(images[3]) as image:
        given = [images[3], str(images[3]), images[3].read_bytes(), image, np.asarray(image.convert("RGB"))]
        found = {model.chat(ask(one), max_new_tokens=6).token_ids for one in given}
    assert len(found) == 1


def test_a_stream_is_the_answer_in_pieces_and_may_be_left(model, images):
    pieces = list(model.stream(ask(images[0])))
    assert "".join(pieces) == "A small yellow cross at the bottom and a small blue ring at the bottom right."
    assert len(pieces) > 5
    stream = model.stream(ask(images[0]))
    assert next(stream) == "A"
    stream.close()
    assert model.chat(ask(images[3]), stop=[" green"]).text == "A large"
    assert model.scheduler.counts == (0, 0)


def test_an_answer_leaves_nothing_for_the_garbage_collector(model, images, monkeypatch):
    jobs, submit = [], model.scheduler.submit
    monkeypatch.setattr(model.scheduler, "submit", lambda job: (jobs.append(weakref.ref(job)), submit(job)))
    gc.disable()
    try:
        model.chat(ask(images[0]), 2)
        list(model.stream(ask(images[0]), 2))
        end = time.monotonic() + 10
        while any(job() is not None for job in jobs) and time.monotonic() < end:
            time.sleep(0.01)
        assert [job() for job in jobs] == [None, None]
    finally:
        gc.enable()


def test_many_threads_get_their_own_answers(model, hugging_face, images):
    asked = [(image, DESCRIBE) for image in images] * 2
    wanted = {image: hugging_face.tokens(image, DESCRIBE) for image in images}
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda each: model.generate([each[1]], [each[0]])[0].token_ids, asked))
    assert found == [wanted[image] for image, _ in asked]


def test_more_prompts_than_rows_are_answered_in_order(model, images):
    texts = [answer.text for answer in model.generate([DESCRIBE] * 3, [images[3], images[2], images[0]])]
    assert texts[0] == "A large green cross at the top." and texts[1].startswith("A large purple")
    assert texts[2].startswith("A small yellow")


def test_a_seed_repeats_an_answer_whatever_else_runs(model, images):
    def sampled(seed):
        return model.chat(ask(images[0]), 8, temperature=8.0, top_k=50, seed=seed).token_ids

    alone = sampled(1)
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(sampled, [1, 2, 1]))
    assert together[0] == together[2] == alone
    assert together[1] != alone
    both = model.generate([DESCRIBE] * 2, [images[0]], 8, temperature=8.0, top_k=50, seed=1)
    assert both[0].token_ids == alone != both[1].token_ids


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": "3"}, "max_new_tokens is a str"),
        ({"max_new_tokens": True}, "max_new_tokens is a bool"),
        ({"max_new_tokens": 0}, "0 new tokens were asked for"),
        ({"max_new_tokens": 10_000}, "with 10000 new ones that is more than the engine's"),
        ({"temperature": "hot"}, "temperature is a str"),
        ({"temperature": -1.0}, "temperature -1.0 is out of range"),
        ({"top_p": 0.0}, "top-p 0.0 is out of range"),
        ({"stop": "cross"}, "the stop strings are a str"),
        ({"stop": [""]}, "a stop string is empty"),
    ],
    ids=str,
)
def test_a_wrong_argument_is_one_clear_error(options, message, model, images):
    with pytest.raises(DittoError, match=message) as caught:
        model.chat(ask(images[0]), **options)
    assert caught.value.remedy


def test_prompts_and_images_that_do_not_fit_are_refused(model, images):
    with pytest.raises(PromptError, match="the prompts are a str"):
        model.generate(DESCRIBE, [images[0]])
    with pytest.raises(PromptError, match="images given: 0"):
        model.generate([DESCRIBE])
    with pytest.raises(PromptError, match="the engine accepts 256"):
        model.generate(["long " * 400])
    with pytest.raises(PromptError, match="there is no such image"):
        model.chat(ask("https://example.com/cat.png"))
    assert model.generate([]) == []


def test_rows_that_the_engine_lacks_are_refused(shapes_tree):
    with pytest.raises(ConfigError, match="3 rows were asked for; the engine has 2"):
        load(shapes_tree, rows=3)


def test_a_closed_model_takes_nothing_more_and_leaves_no_thread(shapes_tree, images):
    before = threading.active_count()
    with load(shapes_tree) as model:
        pass
    assert threading.active_count() == before
    with pytest.raises(BusyError, match="the model is closed"):
        model.chat(ask(images[0]))
    model.close()


def test_a_model_without_chat_template_says_so(shapes_tree, shapes_checkpoint, tmp_path, images):
    import shutil

    directory = shutil.copytree(shapes_checkpoint, tmp_path / "hf", ignore=shutil.ignore_patterns("*.safetensors"))
    (directory / "chat_template.jinja").unlink()
    with load(shapes_tree, processor=directory) as model:
        assert not model.has_chat_template
        with pytest.raises(ConfigError, match="the model has no chat template"):
            model.chat(ask(images[0]))


class Stub:
    """Takes so many jobs, and fails the first at once where it is told to."""

    def __init__(self, room, fault=None):
        self.jobs, self.room, self.fault = [], room, fault

    def submit(self, job):
        if len(self.jobs) == self.room:
            raise BusyError("full")
        self.jobs.append(job)
        if self.fault and len(self.jobs) == 1:
            job.end(self.fault)


@pytest.mark.parametrize("stub", [Stub(2), Stub(3, PromptError("too long"))])
def test_prompts_are_given_up_if_one_is_not_taken_or_fails(stub, model, monkeypatch):
    monkeypatch.setattr(model, "scheduler", stub)
    with pytest.raises(BusyError if stub.fault is None else PromptError):
        model.generate(["one", "two", "three"])
    assert len(stub.jobs) == stub.room and all(job.cancelled for job in stub.jobs)


@pytest.mark.parametrize("leave", [lambda stream: stream.close(), lambda stream: stream.__del__()])
def test_a_stream_that_was_not_begun_may_be_left(leave, model, images, monkeypatch):
    stub = Stub(1)
    monkeypatch.setattr(model, "scheduler", stub)
    stream = model.stream(ask(images[0]))
    leave(stream)
    assert stub.jobs[0].cancelled and list(stream) == []
