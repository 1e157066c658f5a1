"""The server's routes."""

from __future__ import annotations

import asyncio
import hmac
import math
import re
import secrets
import time
import uuid
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from attrs import evolve, frozen
from loguru import logger
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import ditto
from ditto.errors import BusyError, ConfigError, DeadlineError, DittoError, PromptError
from ditto.files import parse_json
from ditto.runtime.encoding import EncodedPrompt
from ditto.serve.exchange import ClientLeftError, EventStream, Exchange, left
from ditto.serve.media import MediaPolicy
from ditto.serve.metrics import CONTENT_TYPE, Metrics
from ditto.serve.page import page
from ditto.serve.protocol import (
    AnswerRequest,
    ChatRequest,
    CompletionRequest,
    Reply,
    RequestError,
    read_chat,
    read_completion,
)
from ditto.text.model import Model
from ditto.text.pipeline import AnswerSettings

_ID = re.compile(r"[\w.:-]{1,64}")
_BODY_SECONDS = 30.0
_PREPARE_SECONDS = 60.0
_WORKERS = 2
_MOST_VALUES = 1 << 19  # of a body: Python's parser of JSON stops all threads until it has read them
_SEEDS = 1 << 40
_MOST_IMAGES = 128
_CLIENT_LEFT = 499  # as nginx logs it; nobody reads the answer

T = TypeVar("T")
Handler = Callable[[Request], Awaitable[Response]]


@frozen
class ServerSettings:
    """Settings of a server.

    Args:
        name: of the model, for its clients.
        keys: one of them must come with each request below `/v1`; empty to ask for none.
        media: which images are read.
        max_body_bytes: of a request.
        timeout: seconds from a request to its complete answer.
        prepare_timeout: seconds in which a request's images and text must be prepared.
    """

    name: str
    keys: tuple[str, ...] = ()
    media: MediaPolicy = MediaPolicy()
    max_body_bytes: int = 1 << 26
    timeout: float = 600.0
    prepare_timeout: float = _PREPARE_SECONDS


class Server:
    """OpenAI's HTTP interface to a model.

    Args:
        model: its scheduler bounds its queue.
    """

    def __init__(self, model: Model, settings: ServerSettings) -> None:
        self._model, self._settings = model, settings
        self._workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix="ditto-prepare")
        self._readers = ThreadPoolExecutor(1, thread_name_prefix="ditto-read")
        self._metrics = Metrics(settings.name, lambda: model.scheduler.counts, model.image_cache)
        self._preparing: list[Future[tuple[list[EncodedPrompt], AnswerSettings]]] = []
        self._created = int(time.time())
        self.draining = False

    @property
    def longest_answer(self) -> int:
        """Seconds after which each answer has ended, one way or the other."""
        return math.ceil(self._settings.timeout)

    def application(self) -> Starlette:
        """The ASGI application."""
        routes = [
            Route("/v1/chat/completions", self._guarded(self._chat), methods=["POST"]),
            Route("/v1/completions", self._guarded(self._completion), methods=["POST"]),
            Route("/v1/models", self._guarded(self._models)),
            Route("/health", self._logged(self._health)),
            Route("/health/ready", self._logged(self._ready)),
            Route("/", self._logged(self._page)),
            Route("/version", self._logged(self._version)),
            Route("/metrics", self._logged(self._metrics_text)),
        ]
        return Starlette(routes=routes, exception_handlers={HTTPException: _http_error})

    def close(self) -> None:
        """Stop preparing requests."""
        for pool in (self._workers, self._readers):
            pool.shutdown(wait=False, cancel_futures=True)

    # Routes

    async def _chat(self, request: Request) -> Response:
        return await self._answer(request, await self._body(request, read_chat))

    async def _completion(self, request: Request) -> Response:
        return await self._answer(request, await self._body(request, read_completion))

    async def _models(self, request: Request) -> Response:
        del request
        name, longest = self._settings.name, self._model.tree.limits.max_seq_len
        entry = {"id": name, "object": "model", "created": self._created, "owned_by": "ditto", "max_model_len": longest}
        return JSONResponse({"object": "list", "data": [entry]})

    async def _health(self, request: Request) -> Response:
        del request
        alive = self._model.scheduler.alive
        return JSONResponse({"status": "ok" if alive else "down"}, 200 if alive else 503)

    async def _ready(self, request: Request) -> Response:
        del request
        ready = self._model.scheduler.alive and not self.draining
        return JSONResponse({"status": "ready" if ready else "not ready"}, 200 if ready else 503)

    async def _page(self, request: Request) -> Response:
        del request
        return page(self._settings.name)

    async def _version(self, request: Request) -> Response:
        del request
        return JSONResponse({"version": ditto.__version__})

    async def _metrics_text(self, request: Request) -> Response:
        del request
        return Response(self._metrics.text(), media_type=CONTENT_TYPE)

    # Answers

    async def _answer(self, request: Request, asked: AnswerRequest) -> Response:
        deadline = time.monotonic() + self._settings.timeout
        start = time.perf_counter()
        gone = asyncio.ensure_future(left(request))
        try:
            prompts, settings = await self._prepared(asked, gone)
            took = (time.perf_counter() - start) / len(prompts)
            exchange = Exchange(
                self._model.scheduler, prompts, settings, asked.choices, deadline, took, self._metrics.answered
            )
        except BaseException:
            gone.cancel()
            raise
        is_chat = isinstance(asked, ChatRequest)
        ident = f"{'chatcmpl' if is_chat else 'cmpl'}-{uuid.uuid4().hex}"
        reply = Reply(ident, int(time.time()), self._settings.name, is_chat)
        try:
            if not asked.streams:
                answers = await exchange.answers(gone)
                gone.cancel()
                return JSONResponse(reply.whole(answers, len(prompts)))
            first = await exchange.first(gone)  # an error before it still has its own status
        except BaseException:
            exchange.cancel()
            gone.cancel()
            raise
        log = partial(logger.info, "{} stream {}", request.state.ident)
        return EventStream(exchange.chunks(first, gone, reply, asked.with_usage), exchange, gone, log)

    async def _prepared(
        self, asked: AnswerRequest, gone: asyncio.Future[None]
    ) -> tuple[list[EncodedPrompt], AnswerSettings]:
        """Token ids and images of a request; at most as many are prepared as may wait.

        Raises:
            DittoError: the request is not valid, takes too long, or too many wait.
            ClientLeftError: `gone` is done.
        """
        places = self._model.scheduler.places
        count = asked.choices * (len(asked.prompts) if isinstance(asked, CompletionRequest) else 1)
        if count > places:
            raise ConfigError(f"the request asks for {count} answers", remedy=f"ask for at most {places} at once")
        running, waiting = self._model.scheduler.counts
        self._preparing = [one for one in self._preparing if not one.done()]
        if self.draining or running + waiting + len(self._preparing) >= places:
            raise BusyError("too many requests wait already", remedy="try again later")
        working = self._workers.submit(self._prepare, asked)
        self._preparing.append(working)  # until its thread is done with it, whoever still waits for it
        prepared = asyncio.wrap_future(working)
        seconds = min(self._settings.prepare_timeout, self._settings.timeout)
        try:
            await asyncio.wait({prepared, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if prepared.done():
                return prepared.result()
        finally:
            prepared.cancel()
        if gone.done():
            raise ClientLeftError
        raise DeadlineError(
            f"the request was not prepared in {seconds:g} s", remedy="send fewer or smaller images, or try again later"
        )

    def _prepare(self, asked: AnswerRequest) -> tuple[list[EncodedPrompt], AnswerSettings]:
        given = dict(asked.settings)
        seed = given.pop("seed")
        settings = self._model.settings(**given)
        sampling = settings.sampling
        if sampling is not None and not sampling.is_greedy:
            seed = secrets.randbelow(_SEEDS) if seed is None else seed % _SEEDS
            settings = evolve(settings, sampling=evolve(sampling, seed=seed))
        if isinstance(asked, ChatRequest):
            return [self._model.encode_chat(self._with_images(asked.messages))], settings
        assert isinstance(asked, CompletionRequest)
        return self._model.encode(asked.prompts), evolve(settings, strip=False)

    def _with_images(self, messages: list[Any]) -> list[Any]:
        """Messages with images in the place of their addresses."""
        parts = [
            part
            for message in messages
            if isinstance(message, dict) and isinstance(message.get("content"), list)
            for part in message["content"]
            if isinstance(part, dict) and part.get("type") == "image"
        ]
        most = min(self._model.tree.limits.max_prompt_embedding_table_size, _MOST_IMAGES)
        if len(parts) > most > 0:  # each of them is enlarged when it is prepared
            raise PromptError(f"the request has {len(parts)} images", remedy=f"send at most {most}")
        images = self._settings.media.load([part["image"] for part in parts])
        for part, image in zip(parts, images, strict=True):
            part["image"] = image
        return messages

    async def _body(self, request: Request, reader: Callable[[Any, str], T]) -> T:
        """The JSON body of a request, read in a thread of its own.

        Args:
            reader: checks a parsed body, for the model of a name.
        Raises:
            RequestError: it is too large, too slow or not a valid request.
        """
        limit = self._settings.max_body_bytes
        too_large = RequestError(413, f"The body has more than {limit} bytes.", code="too_large")
        stated = request.headers.get("content-length", "")
        if stated.isdigit() and int(stated) > limit:
            raise too_large
        content = bytearray()

        async def read() -> None:
            async for piece in request.stream():
                content.extend(piece)
                if len(content) > limit:
                    raise too_large

        try:
            await asyncio.wait_for(read(), _BODY_SECONDS)
        except asyncio.TimeoutError:
            raise RequestError(408, "The body did not arrive in time.") from None
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, self._read, bytes(content), reader)

    def _read(self, content: bytes, reader: Callable[[Any, str], T]) -> T:
        if sum(content.count(mark) for mark in (b",", b"[", b"{")) > _MOST_VALUES:
            raise RequestError(413, f"The body has more than {_MOST_VALUES} commas and brackets.", code="too_large")
        try:
            body = parse_json(content)
        except ValueError as error:
            raise RequestError(400, f"The body is not valid JSON: {error}.") from error
        return reader(body, self._settings.name)

    # Around each route

    def _guarded(self, handler: Handler) -> Handler:
        """A route that needs a key, if the server has one."""
        keys = [key.encode() for key in self._settings.keys]

        async def guarded(request: Request) -> Response:
            kind, _, given = request.headers.get("authorization", "").partition(" ")
            found = [hmac.compare_digest(given.strip().encode(), key) for key in keys]
            if keys and not (kind.lower() == "bearer" and any(found)):
                headers = {"WWW-Authenticate": "Bearer"}
                raise RequestError(401, "The API key is missing or wrong.", code="invalid_api_key", headers=headers)
            return await handler(request)

        return self._logged(guarded)

    def _logged(self, handler: Handler) -> Handler:
        """A route whose errors become answers, with a request id in answer and log."""

        async def logged(request: Request) -> Response:
            given = request.headers.get("x-request-id", "")
            ident = given if _ID.fullmatch(given) else uuid.uuid4().hex
            request.state.ident = ident
            start = time.perf_counter()
            try:
                response = await handler(request)
            except (ClientLeftError, ClientDisconnect):
                response = Response(status_code=_CLIENT_LEFT)
            except RequestError as error:
                response = self._refused(error)
            except DittoError as error:
                refused = RequestError.of(error)
                if refused.status >= 500:
                    logger.warning("{} {}", ident, error)
                response = self._refused(refused)
            except Exception:
                logger.exception("{} failed", ident)
                response = self._refused(RequestError.of(DittoError("the request failed unexpectedly")))
            response.headers["X-Request-Id"] = ident
            took = time.perf_counter() - start
            logger.info("{} {} {} {} {:.3f} s", ident, request.method, request.url.path, response.status_code, took)
            return response

        return logged

    def _refused(self, error: RequestError) -> Response:
        self._metrics.failed(error.status)
        return JSONResponse(error.body, error.status, error.headers)


async def _http_error(request: Request, error: Exception) -> Response:
    """Unknown paths and methods, in the form of other errors."""
    assert isinstance(error, HTTPException)
    message = f"There is no {request.method} {request.url.path} here."
    return JSONResponse(RequestError(error.status_code, message).body, error.status_code, error.headers)
