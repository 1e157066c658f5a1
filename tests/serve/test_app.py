"""The real openai client gets Hugging Face's answers; what the server cannot do is refused in OpenAI's form."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import openai as library
import pytest
import torch
from PIL import Image

import ditto
from ditto.serve import app
from ditto.text.decoding import Decoder
from ditto.text.model import load
from ditto.text.pipeline import GenerationPipeline
from tests.support.serving import NAME, ask, bare, client, data_url, serving
from tests.support.shapes import one_of_each_kind, world

DESCRIBE = "Describe this image."


def chat(openai, messages, **settings):
    return openai.chat.completions.create(model=NAME, messages=messages, **settings)


def answer(openai, messages, **settings):
    return chat(openai, messages, **settings).choices[0].message.content


def text_of(hugging_face, tokens):
    return hugging_face.processor.tokenizer.decode(tokens, skip_special_tokens=True).strip()


def test_a_chat_about_one_image(openai, hugging_face, images):
    found = chat(openai, ask(DESCRIBE, images[3]))
    prompt = f"USER: <image>\n{DESCRIBE} ASSISTANT:"
    wanted = hugging_face.tokens(images[3], prompt)
    (choice,) = found.choices
    assert (choice.message.role, choice.message.content) == ("assistant", text_of(hugging_face, wanted))
    assert (choice.finish_reason, found.model, found.object) == ("stop", NAME, "chat.completion")
    asked = hugging_face.inputs(images[3], prompt)["input_ids"].shape[1]
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (asked, len(wanted))
    assert found.usage.total_tokens == asked + len(wanted)


def test_a_chat_about_two_images(openai, hugging_face, images):
    parts = [{"type": "image"}] * 2 + [{"type": "text", "text": DESCRIBE}]
    opened = [Image.open(path).convert("RGB") for path in images[:2]]
    text = hugging_face.processor.apply_chat_template([{"role": "user", "content": parts}], add_generation_prompt=True)
    given = hugging_face.processor(text=[text], images=opened, return_tensors="pt")
    made = hugging_face.model.generate(**given, max_new_tokens=24, do_sample=False)[0, given["input_ids"].shape[1] :]
    assert answer(openai, ask(DESCRIBE, *images[:2]), max_tokens=24) == text_of(hugging_face, made)


def test_a_stream_is_the_answer_in_pieces(openai, images):
    messages = ask(DESCRIBE, images[0])
    whole = chat(openai, messages)
    *pieces, last = chat(openai, messages, stream=True, stream_options={"include_usage": True})
    assert last.choices == [] and last.usage == whole.usage
    assert pieces[0].choices[0].delta.role == "assistant"
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == whole.choices[0].message.content
    assert [piece.choices[0].finish_reason for piece in pieces] == [None] * (len(pieces) - 1) + ["stop"]
    assert len({piece.id for piece in pieces}) == 1 and len(pieces) > 6


def test_stop_strings_and_limits_end_an_answer(openai, images):
    messages = ask(DESCRIBE, images[0])
    assert answer(openai, messages, stop=" cross") == "A small yellow"
    assert answer(openai, messages, stop=["never", " and"]) == "A small yellow cross at the bottom"
    short = chat(openai, messages, max_completion_tokens=3)
    assert (short.usage.completion_tokens, short.choices[0].finish_reason) == (3, "length")


def test_a_seed_repeats_an_answer(openai, images):
    messages = ask(DESCRIBE, images[0])

    def sampled(seed, **more):
        found = chat(openai, messages, temperature=8.0, seed=seed, max_tokens=8, **more)
        return [choice.message.content for choice in found.choices]

    (one,), two = sampled(7), sampled(7, n=2)
    assert two[0] == one != two[1]
    assert sampled(-1) == sampled(-1) != [one]
    assert len({sampled(None)[0] for _ in range(3)}) > 1


def test_penalties_are_those_of_hugging_face_for_each_request_of_a_batch(openai, hugging_face, images):
    """Together with requests that ask for none, or for others."""
    prompt = f"USER: <image>\n{DESCRIBE} ASSISTANT:"
    inputs = hugging_face.inputs(images[0], prompt)
    length = inputs["input_ids"].shape[1]

    def counting(ids, scores):
        count = torch.bincount(ids[0, length:], minlength=scores.shape[-1])
        return scores - 1.5 * count - torch.where(count > 0, 2.0, 0.0)

    end = hugging_face.model.generation_config.eos_token_id
    long = {"max_new_tokens": 45, "min_new_tokens": 40}  # behind its usual end, the model is less sure

    def lengthened(**settings):
        return {"max_tokens": 45, "extra_body": {"min_tokens": 40, **settings}}

    asked = [
        ({}, {}),
        (lengthened(), long),
        (lengthened(repetition_penalty=1.8), {**long, "repetition_penalty": 1.8}),
        (lengthened(frequency_penalty=1.5, presence_penalty=2.0), {**long, "logits_processor": [counting]}),
        ({"logit_bias": {str(end): 40}}, {"sequence_bias": {(end,): 40.0}}),
    ]
    wanted = []
    for _, settings in asked:
        made = hugging_face.model.generate(**inputs, do_sample=False, **{"max_new_tokens": 64, **settings})
        wanted.append(text_of(hugging_face, made[0, length:]))
    assert len(set(wanted)) == len(wanted)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda each: answer(openai, ask(DESCRIBE, images[0]), **each[0]), asked * 2))
    assert found == wanted * 2


def test_log_probabilities_are_those_of_hugging_face(openai, hugging_face, images):
    """Of the model's own logits, whatever the temperature and the penalties; also in a stream, and in a batch."""
    inputs = hugging_face.inputs(images[0], f"USER: <image>\n{DESCRIBE} ASSISTANT:")
    settings = {"temperature": 0.7, "seed": 3, "frequency_penalty": 1.0, "max_tokens": 30}
    settings["extra_body"] = {"min_tokens": 30}
    messages = ask(DESCRIBE, images[0])
    with ThreadPoolExecutor(2) as pool:
        other = pool.submit(answer, openai, messages)
        found = chat(openai, messages, logprobs=True, top_logprobs=4, **settings)
        other.result()
    content = found.choices[0].logprobs.content
    texts = [each.token for each in content]
    made = hugging_face.processor.tokenizer.convert_tokens_to_ids([each.replace(" ", "\u0120") for each in texts])
    ids = torch.cat([inputs["input_ids"], torch.tensor([made])], dim=1)
    whole = {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.no_grad():
        logits = hugging_face.model(**whole).logits[0, -len(made) - 1 : -1]
    wanted = logits.float().log_softmax(-1)
    likeliest = wanted.topk(4, dim=-1)
    assert len(content) == 30 == found.usage.completion_tokens
    for index, each in enumerate(content):
        assert abs(each.logprob - wanted[index, made[index]].item()) < 0.05
        for rank, one in enumerate(each.top_logprobs):
            assert abs(one.logprob - likeliest.values[index, rank].item()) < 0.05
            assert bytes(one.bytes).decode() == one.token
        assert len(each.top_logprobs) == 4
    assert b"".join(bytes(each.bytes) for each in content).decode().strip() == found.choices[0].message.content
    pieces = list(chat(openai, messages, logprobs=True, top_logprobs=4, stream=True, **settings))
    streamed = [one for piece in pieces if piece.choices[0].logprobs for one in piece.choices[0].logprobs.content]
    assert [one.token for one in streamed] == texts
    for one, each in zip(streamed, content, strict=True):
        assert abs(one.logprob - each.logprob) < 0.05
    assert all(piece.choices[0].logprobs is None for piece in chat(openai, HELLO, max_tokens=2, stream=True))


def test_log_probabilities_of_completions(openai, hugging_face):
    prompt = "USER: How many shapes are there? ASSISTANT:"
    whole = openai.completions.create(model=NAME, prompt=prompt, max_tokens=6, logprobs=2).choices[0]
    ids = hugging_face.processor.tokenizer([prompt], return_tensors="pt")["input_ids"]
    made = hugging_face.model.generate(
        ids, max_new_tokens=6, do_sample=False, output_logits=True, return_dict_in_generate=True
    )
    wanted = [logits[0].log_softmax(-1).max().item() for logits in made.logits]
    assert whole.logprobs.token_logprobs == pytest.approx(wanted, abs=0.05)
    tops = [sorted(top.values(), reverse=True) for top in whole.logprobs.top_logprobs]
    both = [logits[0].log_softmax(-1).topk(2).values.tolist() for logits in made.logits]
    assert tops == [pytest.approx(one, abs=0.05) for one in both]
    shown = [text for text in whole.logprobs.tokens if text != "</s>"]
    assert "".join(shown) == whole.text
    assert whole.logprobs.text_offset == [len("".join(shown[:place])) for place in range(len(whole.logprobs.tokens))]
    pieces = list(openai.completions.create(model=NAME, prompt=prompt, max_tokens=6, logprobs=2, stream=True))
    told = [piece.choices[0].logprobs for piece in pieces if piece.choices[0].logprobs]
    assert [offset for one in told for offset in one.text_offset] == whole.logprobs.text_offset
    (none,) = openai.completions.create(model=NAME, prompt=prompt, max_tokens=1, logprobs=0).choices
    assert none.logprobs.top_logprobs == [dict(zip(none.logprobs.tokens, none.logprobs.token_logprobs, strict=True))]


def test_completions_pass_prompts_as_they_are(openai, hugging_face):
    prompts = ["USER: How many shapes are there? ASSISTANT:", "<s>A small"]
    found = openai.completions.create(model=NAME, prompt=prompts, max_tokens=6)
    for prompt, choice in zip(prompts, found.choices, strict=True):
        ids = hugging_face.processor.tokenizer([prompt], return_tensors="pt")["input_ids"]
        made = hugging_face.model.generate(ids, max_new_tokens=6, do_sample=False)[0, ids.shape[1] :]
        decoded = hugging_face.processor.tokenizer.decode(
            made, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        assert choice.text == decoded
    pieces = openai.completions.create(model=NAME, prompt=prompts[0], max_tokens=6, stream=True)
    assert "".join(piece.choices[0].text for piece in pieces) == found.choices[0].text
    assert len(openai.completions.create(model=NAME, prompt="A").choices[0].text) > 0


def test_sixteen_clients_get_the_answers_that_each_gets_alone(openai, hugging_face, asked):
    images, questions = asked
    chosen = [questions[number] for number in one_of_each_kind(questions)]
    wanted = [
        text_of(hugging_face, hugging_face.tokens(images[each.image], f"USER: <image>\n{bare(each)} ASSISTANT:"))
        for each in chosen
    ]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda each: answer(openai, ask(bare(each), images[each.image])), chosen * 3))
    assert found == wanted * 3


@pytest.mark.slow
@pytest.mark.parametrize("clients", [1, 16])
def test_all_answers_are_those_of_hugging_face(clients, shapes_checkpoint, hugging_face, tmp_path):
    images, questions = world(tmp_path, count=32)
    assert len(questions) == 186
    model = ditto.LlavaModel.from_pretrained(str(shapes_checkpoint)).with_batch(4).with_target("tensorrt-rtx")
    tree = model.build_all(tmp_path / "tree")
    wanted = [
        text_of(hugging_face, hugging_face.tokens(images[each.image], f"USER: <image>\n{bare(each)} ASSISTANT:"))
        for each in questions
    ]
    with serving(load(tree)) as (address, _), client(address) as openai, ThreadPoolExecutor(clients) as pool:
        found = list(pool.map(lambda each: answer(openai, ask(bare(each), images[each.image])), questions))
    assert found == wanted


def of_image(url):
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]


HELLO = [{"role": "user", "content": "Hello"}]
WRONG = {
    "a file that is no image": ({"messages": of_image("data:image/png;base64,YWJj")}, "not an image"),
    "broken base64": ({"messages": of_image("data:image/png;base64,a!")}, "The data URL cannot be read"),
    "a host that is not allowed": ({"messages": of_image("http://169.254.169.254/x")}, "are not allowed"),
    "a file of the server": ({"messages": of_image("file:///etc/passwd")}, "This file is not allowed"),
    "a path of the server": ({"messages": of_image("/etc/passwd")}, "neither data:, http:, https: nor file:"),
    "too long a prompt": ({"messages": [{"role": "user", "content": "long " * 400}]}, "the engine accepts 256"),
    "too many new tokens": ({"max_tokens": 5000}, "with 5000 new ones"),
    "no new tokens": ({"max_tokens": 0}, "0 new tokens were asked for"),
    "an unknown field": ({"extra_body": {"best": 1}}, "`best` is not supported: leave it out"),
    "a field that is not honoured": ({"extra_body": {"best_of": 2}}, "`best_of` is not supported"),
    "a penalty out of range": ({"presence_penalty": 2.5}, "2.5 of presence_penalty is not a number from -2 to 2"),
    "a bias out of range": ({"logit_bias": {"5": 101}}, "101 of logit_bias of token 5 is not a number from -100"),
    "a bias for no token": ({"logit_bias": {"5000": 1}}, "token 5000; the model's tokens go from 0 to 511"),
    "no penalty at all": ({"extra_body": {"repetition_penalty": 0}}, "0 of repetition_penalty is not a number"),
    "log-probabilities without the others": ({"top_logprobs": 3}, "`top_logprobs` needs `logprobs`"),
    "more tokens than allowed": ({"max_tokens": 3, "extra_body": {"min_tokens": 4}}, "4 tokens at least, and 3"),
    "tools": ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "`tools` is not supported"),
    "a temperature out of range": ({"temperature": -1}, "Temperature -1 is out of range"),
    "a wrong type": ({"extra_body": {"top_p": "high"}}, "`top_p` is not a number"),
    "no message": ({"messages": []}, "`messages` is missing or empty"),
    "a role that is not known": ({"messages": [{"role": "tool", "content": "x"}]}, "The role of message 1 is 'tool'"),
    "an image token": ({"messages": [{"role": "user", "content": "<image>"}]}, "holds the image token"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_done_is_refused(name, stream, openai):
    settings, message = WRONG[name]
    with pytest.raises(library.BadRequestError) as caught:
        list(chat(openai, **{"messages": HELLO, "stream": stream, **settings}))
    error = caught.value.body
    assert message in error["message"] and error["type"] == "invalid_request_error"
    assert "Traceback" not in str(error) and "/ditto" not in str(error)


def test_other_models_are_not_found(openai):
    with pytest.raises(library.NotFoundError, match="There is no model 'other' here; there is 'shapes'"):
        openai.chat.completions.create(model="other", messages=HELLO)


@pytest.mark.parametrize("key", ["", "none", "firs", "first2", "sécond"])
def test_a_wrong_key_is_refused_and_health_needs_none(key, server):
    request = urllib.request.Request(f"{server}/v1/models", headers={"Authorization": f"Bearer {key}"})
    request.headers = {name: value.encode("utf-8").decode("latin-1") for name, value in request.headers.items()}
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    assert caught.value.code == 401
    assert json.load(caught.value)["error"]["code"] == "invalid_api_key"
    assert fetched(server, "/health") == {"status": "ok"}


def fetched(server, path, data=None, headers=None):
    request = urllib.request.Request(server + path, data, {"Authorization": "Bearer first", **(headers or {})})
    with urllib.request.urlopen(request) as reply:
        text = reply.read().decode()
    return json.loads(text) if reply.headers["Content-Type"] == "application/json" else text


def test_what_else_the_server_says(server, openai):
    assert [model.id for model in openai.models.list()] == [NAME]
    assert fetched(server, "/health/ready") == {"status": "ready"}
    assert fetched(server, "/version") == {"version": ditto.__version__}
    before = fetched(server, "/metrics")
    answer(openai, HELLO, max_tokens=5)
    after = fetched(server, "/metrics")

    def value(text, name):
        (line,) = (line for line in text.splitlines() if line.startswith(f"ditto:{name}{{"))
        return float(line.split()[-1])

    assert value(after, "generation_tokens_total") == value(before, "generation_tokens_total") + 5
    assert value(after, "time_to_first_token_seconds_count") == value(before, "time_to_first_token_seconds_count") + 1
    assert value(after, "num_requests_running") == 0


@pytest.mark.parametrize(
    ("data", "code", "message"),
    [
        (b"{", 400, "not valid JSON"),
        (b"[" * 100_000, 400, "not valid JSON"),
        (b"[]", 400, "not a JSON object"),
        (b'{"model": "shapes"}', 400, "`messages` is missing"),
        (b'{"model": "shapes", "temperature": NaN}', 400, "NaN is not JSON"),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}], "model": "shapes"}', 400, "not valid JSON"),
        (b'{"messages": [1], "model": "shapes"}', 400, "Message 1 has no role"),
    ],
)
def test_bodies_that_are_not_requests_are_refused(data, code, message, server):
    with pytest.raises(urllib.error.HTTPError) as caught:
        fetched(server, "/v1/chat/completions", data)
    assert (caught.value.code, message in json.load(caught.value)["error"]["message"]) == (code, True)


@pytest.mark.parametrize(("path", "data", "code"), [("/v2", None, 404), ("/v1/chat/completions", None, 405)])
def test_other_paths_are_refused_in_the_same_form(path, data, code, server):
    with pytest.raises(urllib.error.HTTPError) as caught:
        fetched(server, path, data)
    assert caught.value.code == code and json.load(caught.value)["error"]["message"].startswith("There is no GET")


def test_more_images_or_answers_than_fit_are_refused_before_they_are_prepared(own, monkeypatch):
    from ditto.serve.media import MediaPolicy

    monkeypatch.setattr(MediaPolicy, "load", lambda *_: pytest.fail("it was loaded"))
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}
    with serving(own) as (address, _):
        openai = client(address)
        with pytest.raises(library.BadRequestError, match="The request has 129 images. Send at most 128"):
            answer(openai, [{"role": "user", "content": [part] * 129}])
        with pytest.raises(library.BadRequestError, match="The request asks for 3 answers. Ask for at most 2 at once"):
            openai.completions.create(model="shapes", prompt=["a", "b", "c"])


def test_request_ids_come_back(server):
    for given, wanted in (("mine-1", True), ("not mine\t", False)):
        request = urllib.request.Request(f"{server}/health", headers={"X-Request-Id": given})
        with urllib.request.urlopen(request) as reply:
            assert (reply.headers["X-Request-Id"] == given) == wanted


@pytest.fixture
def own(shapes_tree):
    """A model for a server of the test's own."""
    return load(shapes_tree, rows=1, max_waiting=1)


def test_sizes_are_limited_before_decoding(own, images, tmp_path):
    Image.new("RGB", (2000, 2000)).save(tmp_path / "large.png")
    from ditto.serve.media import MediaPolicy

    with serving(own, media=MediaPolicy(max_pixels=10**6), max_body_bytes=10**5) as (address, _):
        openai = client(address)
        with pytest.raises(library.BadRequestError, match="2000 x 2000 pixels is larger than allowed"):
            answer(openai, ask(DESCRIBE, tmp_path / "large.png"))
        with pytest.raises(library.APIStatusError, match="more than 100000 bytes") as caught:
            answer(openai, [{"role": "user", "content": "x" * 10**6}])
        assert caught.value.status_code == 413


@pytest.fixture
def blocked(monkeypatch):
    """Requests wait before the engines until the event is set."""
    release, requests = threading.Event(), GenerationPipeline.requests

    def wait(self, encoded):
        release.wait(60)
        return requests(self, encoded)

    monkeypatch.setattr(GenerationPipeline, "requests", wait)
    yield release
    release.set()


def test_a_full_queue_is_said_at_once_and_draining_finishes_what_was_taken(own, blocked):
    with serving(own) as (address, process), ThreadPoolExecutor(4) as pool:
        openai = client(address)
        taken = [pool.submit(answer, openai, HELLO, max_tokens=2)]
        wait_until(lambda: not own.scheduler._waiting and taken[0].running() and own.scheduler._thread.is_alive())
        time.sleep(0.3)
        taken.append(pool.submit(answer, openai, HELLO, max_tokens=2))
        wait_until(lambda: own.scheduler.counts[1] == 1)
        with pytest.raises(library.RateLimitError) as caught:
            answer(openai, HELLO)
        assert caught.value.response.headers["Retry-After"] == "1"
        process.stop()
        blocked.set()
        assert all(isinstance(each.result(60), str) for each in taken)


def test_a_late_answer_is_a_timeout(own, monkeypatch):
    slow(monkeypatch)
    with (
        serving(own, timeout=0.5) as (address, _),
        pytest.raises(library.InternalServerError, match="not complete at its deadline") as caught,
    ):
        answer(client(address), HELLO, max_tokens=100, stop="never")
    assert caught.value.status_code == 504


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_row(stream, own, monkeypatch):
    steps = slow(monkeypatch)
    with serving(own) as (address, _):
        openai = client(address)
        with pytest.raises(library.APITimeoutError):
            found = chat(openai.with_options(timeout=1.0), HELLO, max_tokens=100, stop="never", stream=stream)
            next(iter(found))
            found.response.close()
            raise library.APITimeoutError(request=found.response.request)
        wait_until(lambda: own.scheduler.counts == (0, 0))
        assert len(steps) < 50


def slow(monkeypatch):
    """Make steps take a tenth of a second; returns a list that grows with each."""
    step, steps = Decoder.step, []

    def wait(self):
        steps.append(0)
        time.sleep(0.1)
        return step(self)

    monkeypatch.setattr(Decoder, "step", wait)
    return steps


def wait_until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_fault_of_ours_is_not_shown(own, monkeypatch):
    def fail(self, messages):
        raise RuntimeError("secret")

    monkeypatch.setattr(type(own), "encode_chat", fail)
    with serving(own) as (address, _), pytest.raises(library.InternalServerError) as caught:
        answer(client(address), HELLO)
    assert "secret" not in str(caught.value.body) and caught.value.body["code"] == "internal_error"


def test_preparation_has_a_limit_of_its_own_and_its_place_is_taken_until_it_ends(own, monkeypatch):
    release, encode = threading.Event(), type(own).encode_chat

    def wait(self, messages):
        release.wait(60)
        return encode(self, messages)

    monkeypatch.setattr(type(own), "encode_chat", wait)
    with serving(own, prepare_timeout=0.3) as (address, _):
        openai = client(address)
        try:
            for _ in range(2):
                with pytest.raises(library.InternalServerError, match="not prepared in 0.3 s") as caught:
                    answer(openai, HELLO)
                assert caught.value.status_code == 504
            with pytest.raises(library.RateLimitError):  # both threads still work
                answer(openai, HELLO)
        finally:
            release.set()
        wait_until(lambda: not own.scheduler._running)
        time.sleep(0.1)
        assert answer(openai, HELLO, max_tokens=2)


def test_a_client_that_leaves_before_its_request_is_prepared_gets_no_row(own, monkeypatch):
    release, submitted, encode = threading.Event(), [], type(own).encode_chat
    monkeypatch.setattr(type(own), "encode_chat", lambda self, messages: release.wait(60) and encode(self, messages))
    submit = type(own.scheduler).submit
    monkeypatch.setattr(type(own.scheduler), "submit", lambda self, job: (submitted.append(job), submit(self, job)))
    with serving(own) as (address, _):
        with pytest.raises(library.APITimeoutError):
            answer(client(address).with_options(timeout=0.5), HELLO)
        time.sleep(0.2)
        release.set()
        assert answer(client(address), HELLO, max_tokens=2)
    assert len(submitted) == 1


def test_a_body_is_read_outside_the_event_loop(own, monkeypatch):
    release, parse = threading.Event(), app.parse_json
    monkeypatch.setattr(app, "parse_json", lambda content: release.wait(60) and parse(content))
    with serving(own) as (address, _), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(answer, client(address), HELLO, max_tokens=2)
        try:
            time.sleep(0.2)
            with urllib.request.urlopen(f"{address}/health", timeout=5) as reply:
                assert reply.status == 200
        finally:
            release.set()
        assert waiting.result(60)


def test_a_body_of_very_many_values_is_refused_before_it_is_parsed(server, monkeypatch):
    monkeypatch.setattr(app, "parse_json", lambda _: pytest.fail("it was parsed"))
    with pytest.raises(urllib.error.HTTPError) as caught:
        fetched(server, "/v1/chat/completions", b"[" + b"[]," * (1 << 19) + b"0]")
    assert caught.value.code == 413


def test_images_from_allowed_places(own, images, tmp_path):
    from ditto.serve.media import MediaPolicy

    with serving(own, media=MediaPolicy(directory=images[0].parent)) as (address, _):
        wanted = answer(client(address), of_image(data_url(images[3])), max_tokens=6)
        assert answer(client(address), of_image(images[3].as_uri()), max_tokens=6) == wanted
