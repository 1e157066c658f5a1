"""Fields are honoured, or refused by name; answers have OpenAI's form."""

from __future__ import annotations

import json
import math

import pytest

from ditto.errors import BusyError, ConfigError, DeadlineError, DeviceError, DittoError, PromptError, TreeError
from ditto.serve.protocol import Reply, RequestError, read_chat, read_completion, usage
from ditto.text.penalties import Penalties
from ditto.text.scheduler import Completion
from ditto.text.token_report import LikelyToken, ReportedToken, TokenText

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
PROMPT = {"model": "m", "prompt": "Hello"}


def test_the_fields_of_a_chat_are_read():
    given = {"temperature": 0.5, "top_p": 0.9, "top_k": 3, "seed": 4, "stop": "x", "max_completion_tokens": 7}
    read = read_chat({**CHAT, **given, "n": 2, "stream": True, "stream_options": {"include_usage": True}}, "m")
    assert read.settings == {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 3,
        "seed": 4,
        "stop": ["x"],
        "max_new_tokens": 7,
        "penalties": Penalties(),
        "top_logprobs": None,
    }
    assert (read.choices, read.streams, read.with_usage, read.messages) == (2, True, True, CHAT["messages"])


def test_what_changes_nothing_is_accepted():
    idle = {
        "logprobs": False,
        "response_format": {"type": "text"},
        "tools": [],
        "user": "me",
        "metadata": {"a": "b"},
        "top_p": None,
        "store": None,
    }
    assert read_chat({**CHAT, **idle}, "m").settings["max_new_tokens"] is None
    assert read_completion({**PROMPT, "echo": False, "best_of": 1}, "m").settings["max_new_tokens"] == 16


@pytest.mark.parametrize(
    ("given", "param", "message"),
    [
        ({"logprobs": 0}, "logprobs", "not true or false"),
        ({"top_logprobs": 2}, "top_logprobs", "needs `logprobs`"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "not from 0 to 20"),
        ({"logprobs": True, "top_logprobs": -1}, "top_logprobs", "not from 0 to 20"),
        ({"response_format": {"type": "json_object"}}, "response_format", "is not supported"),
        ({"logit_bias": [5]}, "logit_bias", "not an object"),
        ({"logit_bias": {"-5": 1}}, "logit_bias", "key '-5' of `logit_bias` is no token id"),
        ({"logit_bias": {"\u0665": 1}}, "logit_bias", "is no token id"),
        ({"repetition_penalty": "1"}, "repetition_penalty", "not a number"),
        ({"presence_penalty": True}, "presence_penalty", "not a number"),
        ({"min_tokens": 1.0}, "min_tokens", "not a whole number"),
        ({"reasoning_effort": None}, "reasoning_effort", "is not supported"),
        ({"model": None}, "model", "`model` is missing"),
        ({"n": 0}, "n", "from 1 to 16"),
        ({"n": True}, "n", "not a whole number"),
        ({"stream": 1}, "stream", "not true or false"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "needs `stream`"),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options", "is not"),
        ({"stop": [1]}, "stop", "is not a text"),
        ({"stop": ["a"] * 17}, "stop", "up to 16"),
        ({"max_tokens": 1.5}, "max_tokens", "not a whole number"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens", "differ"),
        ({"messages": "Hello"}, "messages", "not a list"),
    ],
    ids=str,
)
def test_what_is_not_honoured_is_refused_by_name(given, param, message):
    with pytest.raises(RequestError, match=message) as caught:
        read_chat({**CHAT, **given}, "m")
    assert (caught.value.status, caught.value.param) == (400, param)


def test_log_probabilities_are_read():
    for given, wanted in (({"logprobs": True}, 0), ({"logprobs": True, "top_logprobs": 20}, 20), ({}, None)):
        assert read_chat({**CHAT, **given}, "m").settings["top_logprobs"] == wanted
    for given, wanted in ((0, 0), (20, 20), (None, None)):
        assert read_completion({**PROMPT, "logprobs": given}, "m").settings["top_logprobs"] == wanted
    for given in (True, 21, -1, "2"):
        with pytest.raises(RequestError, match="`logprobs` is not"):
            read_completion({**PROMPT, "logprobs": given}, "m")
    with pytest.raises(RequestError, match="`top_logprobs` is not supported, except 0"):
        read_completion({**PROMPT, "top_logprobs": 1}, "m")


def test_no_infinity_is_written():
    """JSON has none; a completion's tokens of the same text keep the likelier one."""
    token, other = TokenText(5, "A", b"A"), TokenText(6, "A", b"A")
    report = ReportedToken(LikelyToken(token, -math.inf), (LikelyToken(other, -1.0),), 3)
    answer = Completion("A", (5,), "stop", 1, {}, (report,))
    (choice,) = Reply("id", 3, "m", False).whole([answer], 1)["choices"]
    wanted = {"tokens": ["A"], "token_logprobs": [-9999.0], "top_logprobs": [{"A": -1.0}], "text_offset": [3]}
    assert choice["logprobs"] == wanted
    (choice,) = Reply("id", 3, "m", True).whole([answer], 1)["choices"]
    json.dumps(choice, allow_nan=False)


def test_penalties_are_read():
    given = {"frequency_penalty": 1, "presence_penalty": -0.5, "repetition_penalty": 1.2, "min_tokens": 3}
    wanted = Penalties(**given, logit_bias={7: -100, 9: 2.5})
    for read, body in ((read_chat, CHAT), (read_completion, PROMPT)):
        found = read({**body, **given, "logit_bias": {"7": -100, "9": 2.5}}, "m").settings["penalties"]
        assert found == wanted
        nothing = dict.fromkeys((*given, "logit_bias"))
        assert read({**body, **nothing}, "m").settings["penalties"] == Penalties()
        with pytest.raises(ConfigError, match="value 3 of frequency_penalty is not a number from -2 to 2"):
            read({**body, "frequency_penalty": 3}, "m")


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"type": "image_url", "image_url": "data:,"}, "are of type `text` or `image_url`"),
        ({"type": "image_url", "image_url": {"url": 3}}, "`image_url` is not"),
        ({"type": "image_url", "image_url": {"url": "a", "x": 1}}, "`image_url` is not"),
        ({"type": "image_url", "image_url": {"url": "a", "detail": "low"}}, "`detail` is not supported"),
        ({"type": "image", "image": "/etc/passwd"}, "are of type `text` or `image_url`"),
        ({"type": "input_audio", "input_audio": {}}, "are of type `text` or `image_url`"),
    ],
    ids=str,
)
def test_parts_are_texts_and_image_urls(part, message):
    with pytest.raises(RequestError, match=message):
        read_chat({**CHAT, "messages": [{"role": "user", "content": [part]}]}, "m")


@pytest.mark.parametrize("prompt", [None, [], [1, 2], {"a": 1}, ["a", 3]])
def test_prompts_are_texts(prompt):
    with pytest.raises(RequestError, match="`prompt` is not a text"):
        read_completion({**PROMPT, "prompt": prompt}, "m")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (PromptError("too long", where="secret/place", remedy="shorten it"), 400),
        (BusyError("full"), 429),
        (DeadlineError("late"), 504),
        (DittoError("secret/place failed"), 500),
        (DeviceError("secret/place has no memory left"), 500),
        (TreeError("secret/place is damaged"), 500),
    ],
)
def test_errors_become_answers_without_places(error, status):
    made = RequestError.of(error)
    assert made.status == status
    assert "secret" not in str(made.body)
    if status == 400:
        assert made.body["error"]["message"] == "Too long. Shorten it."


def test_a_prompt_with_several_answers_counts_once():
    answers = [Completion("a", (1, 2), "stop", asked, {}) for asked in (5, 5, 7, 7)]
    assert usage(answers, 2) == {"prompt_tokens": 12, "completion_tokens": 8, "total_tokens": 20}
    assert usage(answers[:2], 2)["prompt_tokens"] == 10
    reply = Reply("id", 3, "m", True).whole(answers, 2)
    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2, 3]
