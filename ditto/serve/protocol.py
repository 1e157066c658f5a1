"""OpenAI's HTTP interface: requests, checked field by field, and answers.

A field that is not honoured is refused, unless it has the value that changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen

from ditto.errors import BusyError, ConfigError, DeadlineError, DittoError, PromptError
from ditto.text.penalties import Penalties
from ditto.text.scheduler import Completion
from ditto.text.token_report import LikelyToken, ReportedToken

# Fields that change nothing with these values; `user` and `metadata` are for the client's own records.
_IDLE: Mapping[str, tuple[Any, ...]] = {
    "response_format": ({"type": "text"},),
    "store": (False,),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
}
_OF_COMPLETIONS: Mapping[str, tuple[Any, ...]] = {"best_of": (1,), "echo": (False,), "top_logprobs": (0,)}
_RECORDS = ("metadata", "user")
_MOST_CHOICES = 16
_MOST_STOPS = 16
_MOST_DIGITS = 20
_MOST_LOGPROBS = 20
_LEAST_LOGPROB = -9999.0  # JSON has no infinity
_NEW_TOKENS = 16  # of a completion that states no limit, as OpenAI documents it


class RequestError(Exception):
    """A request that is answered with an error.

    Args:
        status: HTTP status.
        message: what is wrong, and what to do.
        param: the field that is wrong.
        code: a word for programs.
        headers: of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})

    @staticmethod
    def of(error: DittoError) -> RequestError:
        """The answer to an error; places are left out, as they may name files of the server."""
        message = " ".join(part for part in (_sentence(error.cause), _sentence(error.remedy)) if part)
        if isinstance(error, BusyError):
            return RequestError(429, message, code="busy", headers={"Retry-After": "1"})
        if isinstance(error, DeadlineError):
            return RequestError(504, message, code="deadline")
        if isinstance(error, (PromptError, ConfigError)):  # other errors are the server's own
            return RequestError(400, message)
        return RequestError(500, "The request failed; the server's log says why.", code="internal_error")

    @property
    def body(self) -> dict[str, Any]:
        """In OpenAI's form."""
        kinds = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
        kind = kinds.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


@frozen
class AnswerRequest:
    """What both kinds of requests have in common.

    Args:
        settings: keyword arguments of `Model.settings`.
        choices: number of answers.
        streams: whether the answer comes in pieces.
        with_usage: whether a stream ends with the numbers of tokens.
    """

    settings: dict[str, Any]
    choices: int
    streams: bool
    with_usage: bool


@frozen
class ChatRequest(AnswerRequest):
    """A body of `/v1/chat/completions`.

    Args:
        messages: as `Model.chat` takes them, with URLs in the place of images.
    """

    messages: list[Any] = field(kw_only=True)


@frozen
class CompletionRequest(AnswerRequest):
    """A body of `/v1/completions`.

    Args:
        prompts: in the model's own form.
    """

    prompts: list[str] = field(kw_only=True)


class _Fields:
    """The fields of a body, each of which must be read."""

    def __init__(self, body: Any) -> None:
        if not isinstance(body, dict):
            raise RequestError(400, "The body is not a JSON object.")
        self._left = {name: value for name, value in body.items() if value is not None}
        self._null = [name for name, value in body.items() if value is None]
        self._read: set[str] = set()

    def take(self, name: str, kinds: type | tuple[type, ...], what: str, default: Any = None) -> Any:
        """A field of a type, or the default if it is absent or null."""
        self._read.add(name)
        value = self._left.pop(name, None)
        if value is None:
            return default
        kinds = kinds if isinstance(kinds, tuple) else (kinds,)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise RequestError(400, f"`{name}` is not {what}.", name)
        if isinstance(value, float) and not math.isfinite(value):
            raise RequestError(400, f"`{name}` is not a finite number.", name)
        return value

    def end(self, idle: Mapping[str, Sequence[Any]]) -> None:
        """Refuse what is left, but for values that change nothing."""
        for name, value in self._left.items():
            if name in _RECORDS:
                continue
            if name not in idle:
                raise RequestError(400, f"`{name}` is not supported: leave it out.", name, "unsupported_field")
            if not any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in idle[name]):
                allowed = " or ".join(repr(one) for one in idle[name])
                raise RequestError(
                    400, f"`{name}` is not supported, except {allowed}: leave it out.", name, "unsupported_field"
                )
        for name in self._null:
            if name not in self._read and name not in idle and name not in _RECORDS:
                raise RequestError(400, f"`{name}` is not supported: leave it out.", name, "unsupported_field")


def read_chat(body: Any, model: str) -> ChatRequest:
    """Check a body of `/v1/chat/completions`.

    Args:
        model: name of the model that is served.
    Raises:
        RequestError: a field is missing, wrong or not supported.
        ConfigError: a penalty is out of range.
    """
    fields = _Fields(body)
    messages = fields.take("messages", list, "a list")
    if not messages:
        raise RequestError(400, "`messages` is missing or empty.", "messages")
    newer = fields.take("max_completion_tokens", int, "a whole number")
    older = fields.take("max_tokens", int, "a whole number")
    if newer is not None and older is not None and newer != older:
        raise RequestError(400, "`max_tokens` and `max_completion_tokens` differ: give one.", "max_tokens")
    common = _common(fields, model, older if newer is None else newer)
    logprobs = fields.take("logprobs", bool, "true or false", False)
    top = fields.take("top_logprobs", int, "a whole number", 0)
    if top and not logprobs:
        raise RequestError(400, "`top_logprobs` needs `logprobs`.", "top_logprobs")
    common[0]["top_logprobs"] = _number_of_logprobs(top, "top_logprobs") if logprobs else None
    fields.end(_IDLE)
    return ChatRequest(*common, messages=[_message(message, at) for at, message in enumerate(messages)])


def read_completion(body: Any, model: str) -> CompletionRequest:
    """Check a body of `/v1/completions`; as `read_chat`."""
    fields = _Fields(body)
    prompt = fields.take("prompt", (str, list), "a text or a list of texts")
    prompts = [prompt] if isinstance(prompt, str) else prompt
    if not prompts or not all(isinstance(one, str) for one in prompts):
        raise RequestError(400, "`prompt` is not a text or a list of texts.", "prompt")
    common = _common(fields, model, fields.take("max_tokens", int, "a whole number", _NEW_TOKENS))
    top = fields.take("logprobs", int, "a whole number")
    common[0]["top_logprobs"] = None if top is None else _number_of_logprobs(top, "logprobs")
    fields.end({**_IDLE, **_OF_COMPLETIONS})
    return CompletionRequest(*common, prompts=prompts)


def _common(fields: _Fields, model: str, max_tokens: int | None) -> tuple[dict[str, Any], int, bool, bool]:
    asked = fields.take("model", str, "a text")
    if asked is None:
        raise RequestError(400, "`model` is missing.", "model")
    if asked != model:
        raise RequestError(
            404, f"There is no model {asked[:200]!r} here; there is {model!r}.", "model", "model_not_found"
        )
    stop = fields.take("stop", (str, list), "a text or a list of texts", [])
    stops = [stop] if isinstance(stop, str) else stop
    if len(stops) > _MOST_STOPS or not all(isinstance(one, str) and one for one in stops):
        raise RequestError(400, f"`stop` is not a text or a list of up to {_MOST_STOPS} texts.", "stop")
    number = (int, float)
    settings = {
        "max_new_tokens": max_tokens,
        "temperature": fields.take("temperature", number, "a number"),
        "top_p": fields.take("top_p", number, "a number"),
        "top_k": fields.take("top_k", int, "a whole number"),
        "seed": fields.take("seed", int, "a whole number"),
        "stop": stops,
        "penalties": _penalties(fields),
    }
    choices = fields.take("n", int, "a whole number", 1)
    if not 1 <= choices <= _MOST_CHOICES:
        raise RequestError(400, f"`n` is not from 1 to {_MOST_CHOICES}.", "n")
    streams = fields.take("stream", bool, "true or false", False)
    options = fields.take("stream_options", dict, "an object")
    if options is not None and not streams:
        raise RequestError(400, "`stream_options` needs `stream`.", "stream_options")
    with_usage = (options or {}).get("include_usage", False)
    if set(options or {}) - {"include_usage"} or not isinstance(with_usage, bool):
        raise RequestError(400, "`stream_options` is not {'include_usage': true or false}.", "stream_options")
    return settings, choices, streams, with_usage


def _number_of_logprobs(number: int, name: str) -> int:
    if not 0 <= number <= _MOST_LOGPROBS:
        raise RequestError(400, f"`{name}` is not from 0 to {_MOST_LOGPROBS}.", name)
    return number


def _penalties(fields: _Fields) -> Penalties:
    number = (int, float)
    bias = fields.take("logit_bias", dict, "an object", {})
    wrong = [key for key in bias if not (key.isascii() and key.isdigit() and len(key) < _MOST_DIGITS)]
    if wrong:
        raise RequestError(400, f"The key {wrong[0][:40]!r} of `logit_bias` is no token id.", "logit_bias")
    return Penalties(
        repetition_penalty=fields.take("repetition_penalty", number, "a number"),
        frequency_penalty=fields.take("frequency_penalty", number, "a number", 0.0),
        presence_penalty=fields.take("presence_penalty", number, "a number", 0.0),
        logit_bias={int(key): value for key, value in bias.items()},
        min_tokens=fields.take("min_tokens", int, "a whole number"),
    )


def _message(message: Any, at: int) -> Any:
    """A message with its image URLs as `{"type": "image", "image": url}`; checked further by the chat template."""
    if not isinstance(message, dict) or not isinstance(message.get("content"), list):
        return message
    return {**message, "content": [_part(part, f"messages[{at}].content") for part in message["content"]]}


def _part(part: Any, where: str) -> Any:
    if not isinstance(part, dict) or part.get("type") == "text":
        return part
    image = part.get("image_url")
    if part.get("type") != "image_url" or set(part) != {"type", "image_url"} or not isinstance(image, dict):
        raise RequestError(400, "Parts of a message are of type `text` or `image_url`.", where)
    url, detail = image.get("url"), image.get("detail", "auto")
    if not isinstance(url, str) or set(image) - {"url", "detail"}:
        raise RequestError(400, '`image_url` is not {"url": "..."}.', where)
    if detail != "auto":
        raise RequestError(400, "`detail` is not supported, except 'auto': leave it out.", where, "unsupported_field")
    return {"type": "image", "image": url}


def _sentence(text: str | None) -> str:
    text = (text or "").strip()
    return text and text[0].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


@frozen
class Reply:
    """The answer to a request, in OpenAI's form.

    Args:
        ident: of the answer.
        created: Unix time.
        model: name of the model.
        is_chat: whether it answers `/v1/chat/completions`.
    """

    ident: str
    created: int
    model: str
    is_chat: bool

    def whole(self, answers: Sequence[Completion], prompts: int) -> dict[str, Any]:
        """All answers at once.

        Args:
            prompts: number of prompts; each has the same number of answers, one after the other.
        """
        choices = [
            {
                "index": index,
                **self._text(answer.text),
                "logprobs": self._logprobs(answer.logprobs or ()),
                "finish_reason": answer.finish_reason,
            }
            for index, answer in enumerate(answers)
        ]
        kind = "chat.completion" if self.is_chat else "text_completion"
        return {**self._head(kind), "choices": choices, "usage": usage(answers, prompts)}

    def piece(
        self,
        index: int,
        text: str | None,
        finish_reason: str | None = None,
        tokens: Sequence[ReportedToken] = (),
    ) -> dict[str, Any]:
        """A piece of an answer: its beginning (None), more text, or its end; and the tokens since the last piece."""
        logprobs = self._logprobs(tokens)
        choice: dict[str, Any] = {"index": index, "logprobs": logprobs, "finish_reason": finish_reason}
        if not self.is_chat:
            choice["text"] = text or ""
        elif text is None:
            choice["delta"] = {"role": "assistant", "content": ""}
        else:
            choice["delta"] = {"content": text} if text else {}
        return {**self._head("chat.completion.chunk" if self.is_chat else "text_completion"), "choices": [choice]}

    def end(self, answers: Sequence[Completion], prompts: int) -> dict[str, Any]:
        """The last piece of a stream: the numbers of tokens."""
        kind = "chat.completion.chunk" if self.is_chat else "text_completion"
        return {**self._head(kind), "choices": [], "usage": usage(answers, prompts)}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.ident, "object": kind, "created": self.created, "model": self.model}

    def _logprobs(self, tokens: Sequence[ReportedToken]) -> dict[str, Any] | None:
        """Log-probabilities of tokens; None if there are none."""
        if not tokens:
            return None
        if self.is_chat:
            content = [
                {**_likely(each.chosen), "top_logprobs": [_likely(other) for other in each.top]} for each in tokens
            ]
            return {"content": content, "refusal": None}
        tops: list[dict[str, float]] = []
        for each in tokens:
            top: dict[str, float] = {}
            for one in (*each.top, each.chosen):
                top.setdefault(one.token.text, _finite(one.logprob))
            tops.append(top)
        return {
            "tokens": [each.chosen.token.text for each in tokens],
            "token_logprobs": [_finite(each.chosen.logprob) for each in tokens],
            "top_logprobs": tops,
            "text_offset": [each.offset for each in tokens],
        }

    def _text(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text, "refusal": None}} if self.is_chat else {"text": text}


def _likely(one: LikelyToken) -> dict[str, Any]:
    data = one.token.data
    return {
        "token": one.token.text,
        "logprob": _finite(one.logprob),
        "bytes": None if data is None else list(data),
    }


def _finite(logprob: float) -> float:
    return max(logprob, _LEAST_LOGPROB)


def usage(answers: Sequence[Completion], prompts: int) -> dict[str, int]:
    """Numbers of tokens; a prompt with several answers counts once."""
    per_prompt = max(1, len(answers) // max(prompts, 1))
    asked = sum(answer.prompt_tokens for answer in answers[::per_prompt])
    made = sum(answer.completion_tokens for answer in answers)
    return {"prompt_tokens": asked, "completion_tokens": made, "total_tokens": asked + made}
