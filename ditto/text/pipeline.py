"""Pipeline from prompts and images to answers: a processor and a session."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from attrs import evolve, frozen
from torch import Tensor

from ditto.errors import ConfigError, PromptError
from ditto.runtime import Request, Sampling, Session
from ditto.runtime.encoding import EncodedPrompt
from ditto.text.chat import ChatTemplate
from ditto.text.decoding import AnswerState, Decoder, PreparedPrompt
from ditto.text.defaults import GenerationDefaults
from ditto.text.image_cache import ImageCache
from ditto.text.images import ImageInput, load_images
from ditto.text.penalties import NO_PENALTIES, Penalties
from ditto.text.processing import Processor, RenderedPrompt

Tell = Callable[[int, str], None]
_MOST_LOGPROBS = 20


def _ignore_text(number: int, piece: str) -> None:
    del number, piece


@frozen
class GenerationResult:
    """Answers to a batch of prompts.

    Args:
        answers: texts without special tokens.
        tokens: ids of the new tokens, end token included.
        finish_reasons: `stop` or `length`.
        prompt_tokens: number of tokens of each prompt, image tokens included.
        session: name of the session that ran them.
        seconds: wall time of preprocessing, vision and generation.
    """

    answers: tuple[str, ...]
    tokens: tuple[tuple[int, ...], ...]
    finish_reasons: tuple[str | None, ...]
    prompt_tokens: tuple[int, ...]
    session: str
    seconds: dict[str, float]


@frozen
class AnswerSettings:
    """Settings of an answer.

    Args:
        max_new_tokens: None for the limit in the model's defaults, else 128, or fewer if the engine's limit is lower.
        sampling: None for the model's defaults, else greedy decoding.
        stops: strings that end the answer, in addition to the model's own; they are not part of it.
        strip: whether the text comes without white space at both ends.
        draw: which random numbers of the seed the answer gets; of several, the first one's.
        penalties: in addition to the model's own, or in their place.
        top_logprobs: 0 to 20, number of most likely tokens that are reported with each token; None to report nothing.
    Raises:
        PromptError: a stop string is not text.
        ConfigError: `top_logprobs` is out of range.
    """

    max_new_tokens: int | None = None
    sampling: Sampling | None = None
    stops: Sequence[str] = ()
    strip: bool = True
    draw: int = 0
    penalties: Penalties = NO_PENALTIES
    top_logprobs: int | None = None

    def __attrs_post_init__(self) -> None:
        if self.top_logprobs is not None and not 0 <= self.top_logprobs <= _MOST_LOGPROBS:
            raise ConfigError(
                f"{self.top_logprobs} top_logprobs were asked for", remedy=f"ask for 0 to {_MOST_LOGPROBS}"
            )
        if isinstance(self.stops, str):
            raise PromptError("the stop strings are a str, not a list", remedy="give a list, e.g. [stop]")
        for stop in self.stops:
            if not isinstance(stop, str):
                raise PromptError(f"a stop string is a {type(stop).__name__}, not a str", remedy="give text")
            if not stop:
                raise PromptError("a stop string is empty", remedy="give the text at which an answer ends")


class GenerationPipeline:
    """Pipeline that answers prompts about images with a tree.

    Args:
        session: runs the tree.
        processor: directory or hub id with tokenizer and image processor; None for the tree's own.
        with_defaults: apply the model's own generation defaults: penalties, sampling, limits, stop strings.
        image_cache_bytes: size of the cache of image embeddings; 0 for none.
    Raises:
        TreeError: the processor is missing, or belongs to another model than the tree.
        ConfigError: the model's generation defaults contain unsupported settings.
    """

    def __init__(
        self,
        session: Session,
        processor: str | Path | None = None,
        *,
        with_defaults: bool = True,
        image_cache_bytes: int = 0,
    ) -> None:
        self.session = session
        self.defaults = GenerationDefaults.of(session.tree, with_defaults)
        self.image_cache = ImageCache(session, image_cache_bytes)
        self.processor = Processor.of(session.tree, processor)

    @property
    def tokenizer(self) -> Any:
        return self.processor.tokenizer

    @cached_property
    def template(self) -> ChatTemplate | None:
        """The model's chat template; None if it has none."""
        return ChatTemplate.of(self.processor)

    def answer(
        self,
        prompts: Sequence[str | RenderedPrompt],
        images: Sequence[ImageInput] = (),
        max_new_tokens: int | None = None,
        sampling: Sampling | None = None,
        stops: Sequence[str] = (),
        tell: Tell = _ignore_text,
    ) -> GenerationResult:
        """Generate one answer per prompt, as one batch.

        Args:
            prompts: in the model's prompt format, with an image token at the position of each image.
            images: in the order of the image tokens; a single image is used for all prompts that have one image token.
            max_new_tokens, sampling, stops: as in `AnswerSettings`, for each prompt.
            tell: called with a prompt's index, from 0, and the next piece of its answer, as text is generated.
        Raises:
            PromptError: the engines cannot accept a prompt or an image.
            ConfigError: the model's generation defaults cannot be applied.
            ModelError: logits are not finite numbers.
        """
        settings = AnswerSettings(max_new_tokens, sampling, stops)
        start = time.perf_counter()
        encoded = self.processor.encode(prompts, load_images(images))
        encoded_at = time.perf_counter()
        requests = self.requests(encoded)
        seen_at = time.perf_counter()
        prepared = self.prepared(encoded, requests, settings)
        answers = self._generate(prepared, tell)
        done = time.perf_counter()
        return GenerationResult(
            answers=tuple(answer.text for answer in answers),
            tokens=tuple(answer.token_ids for answer in answers),
            finish_reasons=tuple(answer.finish_reason for answer in answers),
            prompt_tokens=tuple(len(request.ids) for request in requests),
            session=self.session.name,
            seconds={
                "preprocess": round(encoded_at - start, 6),
                "vision": round(seen_at - encoded_at, 6),
                "generate": round(done - seen_at, 6),
            },
        )

    def requests(self, encoded: Sequence[EncodedPrompt]) -> list[Request]:
        """Requests of prompts; the vision engine runs once for all their images, or as often as it must.

        Raises:
            PromptError: an image does not match the vision engine.
        """
        found = iter(self.image_cache.embeddings([item for prompt in encoded for item in prompt.items]))
        return [self._request(prompt, [next(found) for _ in prompt.items]) for prompt in encoded]

    def prepared(
        self, encoded: Sequence[EncodedPrompt], requests: Sequence[Request], settings: AnswerSettings
    ) -> list[PreparedPrompt]:
        """Prompts ready to be decoded as one batch.

        Args:
            requests: as `requests` returns them for `encoded`.
        Raises:
            PromptError: they exceed the engine's limits.
            ConfigError: the model's generation defaults, or the penalties, cannot be applied.
        """
        wanted = self.defaults.sampling() if settings.sampling is None else settings.sampling
        stops = (*settings.stops, *self.defaults.stops)
        counts = self._counts(requests, settings.max_new_tokens)
        result: list[PreparedPrompt] = []
        for draw, (prompt, request, count) in enumerate(zip(encoded, requests, counts, strict=True), settings.draw):
            process, sampling = self.defaults.processed(prompt.token_ids, count, wanted, settings.penalties)
            request = evolve(request, process=process, top_logprobs=settings.top_logprobs)
            result.append(PreparedPrompt(request, count, sampling, stops, draw, settings.strip))
        return result

    def _counts(self, requests: Sequence[Request], asked: int | None) -> list[int]:
        """Maximum number of new tokens of each request.

        Raises:
            PromptError: they exceed the engine's limit.
        """
        lengths, longest = [len(request.ids) for request in requests], self.session.limits.max_seq_len
        if asked is None:
            self.session.limits.check(requests, 1)
        counts = [
            self.defaults.new_tokens(number, length, longest - length) if asked is None else asked
            for number, length in enumerate(lengths, 1)
        ]
        self.session.limits.check(requests, min(counts, default=1))
        return counts

    def _generate(self, prompts: Sequence[PreparedPrompt], tell: Tell) -> list[AnswerState]:
        with Decoder(self.session, self.tokenizer, len(prompts)) as decoder:
            answers = [decoder.join(prompt, partial(tell, number)) for number, prompt in enumerate(prompts)]
            while len(decoder):
                for answer in decoder.step():
                    if answer.error is not None:
                        raise answer.error
        return answers

    def _request(self, prompt: EncodedPrompt, embeddings: Sequence[Tensor]) -> Request:
        """One request: its image tokens become virtual ids, one per row of the embeddings."""
        if not embeddings:
            return Request(prompt.token_ids, positions=prompt.positions, spans=prompt.spans)
        features, tokens = torch.cat(list(embeddings)), self.session.tokens
        image = tokens.image
        if image is None:  # a language model that was built alone has no image token
            image = self.processor.image_token_id
        places = [index for index, token in enumerate(prompt.token_ids) if token == image]
        if len(places) != len(features):
            raise PromptError(
                f"the processor makes room for {len(places)} rows of image features, the vision engine gives "
                f"{len(features)}",
                remedy="use the processor of the model that the tree was built from",
            )
        virtual = list(prompt.token_ids)
        for row, index in enumerate(places):
            virtual[index] = tokens.vocab_size + row
        return Request(tuple(virtual), features, positions=prompt.positions, spans=prompt.spans)
