"""A loaded model: answers prompts and conversations from any number of threads."""

from __future__ import annotations

import copy
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from attrs import evolve
from typing_extensions import Self, override

from ditto.engine import EngineTree
from ditto.errors import BusyError, ConfigError, DittoError
from ditto.runtime import open_session
from ditto.runtime.encoding import EncodedPrompt
from ditto.text.chat import ChatTemplate
from ditto.text.image_cache import ImageCache
from ditto.text.images import ImageInput, load_images
from ditto.text.penalties import NO_PENALTIES, Penalties
from ditto.text.pipeline import AnswerSettings, GenerationPipeline
from ditto.text.processing import RenderedPrompt
from ditto.text.scheduler import Completion, Job, Scheduler

__all__ = ["Completion", "Model", "load"]

Messages = Sequence[Mapping[str, Any]]


def load(
    tree: str | Path | EngineTree,
    *,
    session: str = "auto",
    processor: str | Path | None = None,
    generation_defaults: bool = True,
    rows: int | None = None,
    max_waiting: int | None = None,
    image_cache_bytes: int = 1 << 28,
) -> Model:
    """Load an engine tree.

    Args:
        tree: its directory, or the tree itself.
        session: `tensorrt` (the engines, on the GPU), `reference` (PyTorch on the CPU), or `auto` for the best here.
        processor: directory or hub id with tokenizer and image processor; None for the tree's own.
        generation_defaults: apply the model's own: penalties, sampling, limits, stop strings.
        rows: maximum number of answers in progress at once; None for the engine's batch size.
        max_waiting: maximum number of further prompts that wait; None for no limit.
        image_cache_bytes: memory for embeddings of images that may come again; 0 for none.
    Raises:
        TreeError: there is no tree, it is damaged, or its processor is missing.
        ConfigError: a setting is not valid.
        DeviceError, MissingLibraryError: this machine cannot run the session.
    """
    opened = tree if isinstance(tree, EngineTree) else EngineTree.open(tree)
    if rows is not None and not 1 <= rows <= opened.limits.max_batch_size:
        raise ConfigError(
            f"{rows} rows were asked for; the engine has {opened.limits.max_batch_size}",
            remedy="choose fewer, or build with a larger --batch",
        )
    if image_cache_bytes < 0:
        raise ConfigError(f"image_cache_bytes is {image_cache_bytes}", remedy="give 0 for no cache, or more")

    def pipeline() -> GenerationPipeline:
        return GenerationPipeline(
            open_session(opened, session),
            processor,
            with_defaults=generation_defaults,
            image_cache_bytes=image_cache_bytes,
        )

    return Model(opened, Scheduler(pipeline, rows, max_waiting))


class Model:
    """A loaded model, safe to use from several threads; `load` creates one.

    Prompts of all threads share the rows of the engine. A context manager: its exit closes the model.
    """

    def __init__(self, tree: EngineTree, scheduler: Scheduler) -> None:
        self.tree, self.scheduler = tree, scheduler
        pipeline = scheduler.pipeline
        self._pipeline, self._lock = pipeline, threading.Lock()
        # Hugging Face's tokenizers are not safe to use from two threads; the scheduler decodes with the original.
        self._processor = evolve(pipeline.processor, inner=copy.deepcopy(pipeline.processor.inner))
        self._template = ChatTemplate.of(self._processor)

    @override
    def __repr__(self) -> str:
        return f"<Model {str(self.tree.root)!r}: {self.tree.manifest.model_type}, {self.session} session>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def session(self) -> str:
        """Name of the session that runs the tree."""
        return self._pipeline.session.name

    @property
    def image_cache(self) -> ImageCache:
        """The cache of image embeddings."""
        return self._pipeline.image_cache

    @property
    def has_chat_template(self) -> bool:
        """Whether the model has a chat template, which `chat` and `stream` need."""
        return self._template is not None

    def require_chat_template(self) -> ChatTemplate:
        """The model's chat template.

        Raises:
            ConfigError: it has none.
        """
        if self._template is None:
            raise ConfigError(
                "the model has no chat template",
                where=self._processor.directory,
                remedy="give prompts in the model's own form: `generate`, or `ditto run`",
            )
        return self._template

    def close(self) -> None:
        """Finish what was asked for, and release the engines."""
        self.scheduler.close()

    def generate(
        self,
        prompts: Sequence[str],
        images: Sequence[ImageInput] = (),
        max_new_tokens: int | None = None,
        *,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        stop: Sequence[str] = (),
        penalties: Penalties = NO_PENALTIES,
        top_logprobs: int | None = None,
    ) -> list[Completion]:
        """Answer prompts in the model's own form.

        Args:
            prompts: with an image token at the position of each image.
            images: files, `data:` URLs, bytes, PIL images or arrays uint8 [height, width, 3], in the order of the image
                tokens; a single image is used for all prompts that have one image token.
            max_new_tokens: per prompt; None for the model's limit, else 128, or fewer if the engine's limit is lower.
            temperature, top_k, top_p: sampling as in Hugging Face's `generate`; None for the model's own. Temperature 0
                takes the most likely token.
            seed: of the random numbers of sampling.
            stop: strings that end an answer; they are not part of it.
            penalties: for repetition, and biases of single tokens.
            top_logprobs: 0 to 20, number of most likely tokens that are reported with each token in `logprobs` of the
                answer; None to report nothing.
        Raises:
            PromptError: a prompt or an image does not fit the engines.
            ConfigError: a setting is out of range.
            BusyError: the model is closed, or too many prompts wait.
        """
        settings = self.settings(max_new_tokens, temperature, top_k, top_p, seed, stop, penalties, top_logprobs)
        start = time.monotonic()
        encoded = self.encode(prompts, images)
        took = (time.monotonic() - start) / max(len(encoded), 1)
        return self._answers(encoded, settings, took)

    def chat(
        self,
        messages: Messages,
        max_new_tokens: int | None = None,
        *,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        stop: Sequence[str] = (),
        penalties: Penalties = NO_PENALTIES,
        top_logprobs: int | None = None,
    ) -> Completion:
        """Answer the last message of a conversation, written by the model's chat template.

        Args:
            messages: `{"role": "user", "content": ...}` with a text, or a list of `{"type": "text", "text": ...}` and
                `{"type": "image", "image": ...}`; roles are `system`, `user` and `assistant`.
            max_new_tokens, temperature, top_k, top_p, seed, stop, penalties, top_logprobs: as in `generate`.
        Raises:
            PromptError: a message is not valid, or does not fit the engines.
            ConfigError: a setting is out of range, or the model has no chat template.
            BusyError: the model is closed, or too many prompts wait.
        """
        settings = self.settings(max_new_tokens, temperature, top_k, top_p, seed, stop, penalties, top_logprobs)
        start = time.monotonic()
        encoded = self.encode_chat(messages)
        (answer,) = self._answers([encoded], settings, time.monotonic() - start)
        return answer

    def stream(
        self,
        messages: Messages,
        max_new_tokens: int | None = None,
        *,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        stop: Sequence[str] = (),
        penalties: Penalties = NO_PENALTIES,
    ) -> Pieces:
        """The answer of `chat` in pieces, as it is generated.

        Closing the iterator ends the answer. Arguments, but for `top_logprobs`, and errors are those of `chat`. What is
        wrong with the messages or settings is raised at once; a limit of the engines, or a fault of the answer, with
        the next piece.
        """
        settings = self.settings(max_new_tokens, temperature, top_k, top_p, seed, stop, penalties)
        pieces: queue.SimpleQueue[str | Completion | DittoError | None] = queue.SimpleQueue()
        job = Job(self.encode_chat(messages), settings, pieces.put, pieces.put)
        self.scheduler.submit(job)
        return Pieces(job, pieces)

    def settings(
        self,
        max_new_tokens: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        stop: Sequence[str] = (),
        penalties: Penalties = NO_PENALTIES,
        top_logprobs: int | None = None,
    ) -> AnswerSettings:
        """Checked settings of an answer; arguments are those of `generate`.

        Raises:
            ConfigError, PromptError: one is out of range.
        """
        for name, value, kind in (
            ("max_new_tokens", max_new_tokens, int),
            ("temperature", temperature, (int, float)),
            ("top_k", top_k, int),
            ("top_p", top_p, (int, float)),
            ("seed", seed, int),
            ("top_logprobs", top_logprobs, int),
        ):
            if value is not None and (isinstance(value, bool) or not isinstance(value, kind)):
                raise ConfigError(f"{name} is a {type(value).__name__}", remedy="give a number")
        sampling = self._pipeline.defaults.sampling(temperature, top_k, top_p, seed)
        return AnswerSettings(max_new_tokens, sampling, stop, penalties=penalties, top_logprobs=top_logprobs)

    def encode(self, prompts: Sequence[str | RenderedPrompt], images: Sequence[ImageInput] = ()) -> list[EncodedPrompt]:
        """Token ids and preprocessed images of prompts in the model's own form.

        Raises:
            PromptError: a prompt or an image is not valid.
        """
        loaded = load_images(images)
        with self._lock:
            encoded = self._processor.encode(prompts, loaded)
        if self.image_cache.enabled:
            for item in (item for prompt in encoded for item in prompt.items):
                _ = item.digest  # here, not in the scheduler's thread, which it would hold up
        return encoded

    def encode_chat(self, messages: Messages) -> EncodedPrompt:
        """Token ids and preprocessed images of a conversation.

        Raises:
            PromptError: a message is not valid.
            ConfigError: the model has no chat template.
        """
        template = self.require_chat_template()
        with self._lock:
            rendered, images = template.render(messages)
        (encoded,) = self.encode([rendered], images)
        return encoded

    def _answers(self, prompts: Sequence[EncodedPrompt], settings: AnswerSettings, took: float) -> list[Completion]:
        """The answers to prompts; if one fails, or Ctrl-C is pressed, the others are given up."""
        asked: list[tuple[Job, Future[Completion | DittoError | None]]] = []
        for number, prompt in enumerate(prompts):
            future: Future[Completion | DittoError | None] = Future()
            own = evolve(settings, draw=number)
            asked.append((Job(prompt, own, _ignore, future.set_result, preprocessed=took), future))
        try:
            for job, _ in asked:
                self.scheduler.submit(job)
            return [_answered(future.result()) for _, future in asked]
        except BaseException:
            for job, _ in asked:
                job.cancel()
            raise


def _ignore(piece: str) -> None:
    del piece


def _answered(result: Completion | DittoError | None) -> Completion:
    if result is None:
        raise BusyError("the answer was cancelled", remedy="ask again")
    if isinstance(result, DittoError):
        raise result
    return result


class Pieces(Iterator[str]):
    """An answer in pieces of text, as it is generated; `Model.stream` creates it.

    Closing it, or dropping it, ends the answer, whether or not a piece was asked for.
    """

    def __init__(self, job: Job, pieces: queue.SimpleQueue[str | Completion | DittoError | None]) -> None:
        self._job, self._pieces, self._ended = job, pieces, False

    @override
    def __next__(self) -> str:
        if self._ended:
            raise StopIteration
        try:
            piece = self._pieces.get()
            if isinstance(piece, str):
                return piece
            _answered(piece)
        except BaseException:
            self.close()
            raise
        self.close()
        raise StopIteration

    def close(self) -> None:
        """End the answer; nothing happens if it is complete."""
        self._ended = True
        self._job.cancel()

    def __del__(self) -> None:
        self.close()
