"""Pipeline from prompts and images to answers: a processor and a session."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import evolve, frozen
from torch import Tensor

from ditto.errors import PromptError
from ditto.runtime import Batch, Request, Sampling, Session
from ditto.runtime.encoding import EncodedPrompt
from ditto.text.defaults import GenerationDefaults
from ditto.text.detokenizer import IncrementalDetokenizer
from ditto.text.images import ImageInput, load_images
from ditto.text.processing import Processor

Tell = Callable[[int, str], None]


def _ignore_text(number: int, piece: str) -> None:
    del number, piece


@frozen
class GenerationResult:
    """Answers to a batch of prompts.

    Args:
        answers: texts without special tokens.
        tokens: ids of the new tokens, end token included.
        session: name of the session that ran them.
        seconds: wall time of preprocessing, vision and generation.
    """

    answers: tuple[str, ...]
    tokens: tuple[tuple[int, ...], ...]
    session: str
    seconds: dict[str, float]


class GenerationPipeline:
    """Pipeline that answers prompts about images with a tree.

    Args:
        session: runs the tree.
        processor: directory or hub id with tokenizer and image processor; None for the tree's own.
        with_defaults: apply the model's own generation defaults: penalties, sampling, limits, stop strings.
    Raises:
        TreeError: the processor is missing, or belongs to another model than the tree.
        ConfigError: the model's generation defaults contain unsupported settings.
    """

    def __init__(self, session: Session, processor: str | Path | None = None, *, with_defaults: bool = True) -> None:
        self._session = session
        self.defaults = GenerationDefaults.of(session.tree, with_defaults)
        self._processor = Processor.of(session.tree, processor)

    @property
    def tokenizer(self) -> Any:
        return self._processor.tokenizer

    def answer(
        self,
        prompts: Sequence[str],
        images: Sequence[ImageInput] = (),
        max_new_tokens: int | None = None,
        sampling: Sampling | None = None,
        stops: Sequence[str] = (),
        tell: Tell = _ignore_text,
    ) -> GenerationResult:
        """Generate one answer per prompt, as one batch.

        Args:
            prompts: in the model's prompt format, with an image token at the position of each image.
            images: files, their contents as bytes, or PIL images, in the order of the image tokens; a single image is
                used for all prompts that have one image token.
            max_new_tokens: per prompt; None for the limit in the model's defaults, else 128, or fewer if the engine's
                limit is lower.
            sampling: sampling settings; None for the model's defaults, else greedy decoding.
            stops: strings that end an answer, in addition to the model's own; they are not part of it.
            tell: called with a prompt's index, from 0, and the next piece of its answer, as text is generated.
        Raises:
            PromptError: the engines cannot accept a prompt or an image.
            ConfigError: the model's generation defaults cannot be applied.
        """
        if isinstance(stops, str):
            raise PromptError("the stop strings are a str, not a list", remedy="give a list, e.g. [stop]")
        for stop in stops:
            if not isinstance(stop, str):
                raise PromptError(f"a stop string is a {type(stop).__name__}, not a str", remedy="give text")
            if not stop:
                raise PromptError("a stop string is empty", remedy="give the text at which an answer ends")
        start = time.perf_counter()
        encoded = self._processor.encode(prompts, load_images(images))
        encoded_at = time.perf_counter()
        requests = self._requests(encoded)
        seen_at = time.perf_counter()
        counts = self._counts(requests, max_new_tokens)
        requests, sampling = self._processing(encoded, requests, counts, sampling)
        answers = self._generate(requests, counts, sampling, (*stops, *self.defaults.stops), tell)
        done = time.perf_counter()
        return GenerationResult(
            answers=tuple(text.strip() for text, _ in answers),
            tokens=tuple(tokens for _, tokens in answers),
            session=self._session.name,
            seconds={
                "preprocess": round(encoded_at - start, 6),
                "vision": round(seen_at - encoded_at, 6),
                "generate": round(done - seen_at, 6),
            },
        )

    def _counts(self, requests: Sequence[Request], asked: int | None) -> list[int]:
        """Maximum number of new tokens of each request.

        Raises:
            PromptError: they exceed the engine's limit.
        """
        lengths, longest = [len(request.ids) for request in requests], self._session.limits.max_seq_len
        if asked is None:
            self._session.limits.check(requests, 1)
        counts = [
            self.defaults.new_tokens(number, length, longest - length) if asked is None else asked
            for number, length in enumerate(lengths, 1)
        ]
        self._session.limits.check(requests, min(counts, default=1))
        return counts

    def _processing(
        self,
        encoded: Sequence[EncodedPrompt],
        requests: Sequence[Request],
        counts: Sequence[int],
        sampling: Sampling | None,
    ) -> tuple[list[Request], Sampling]:
        """Requests with logits processors, and the sampling settings for them."""
        wanted = chosen = self.defaults.sampling() if sampling is None else sampling
        result: list[Request] = []
        for prompt, request, count in zip(encoded, requests, counts, strict=True):
            process, chosen = self.defaults.processed(prompt.token_ids, count, wanted)
            result.append(evolve(request, process=process))
        return result, chosen

    def _generate(
        self,
        requests: Sequence[Request],
        counts: Sequence[int],
        sampling: Sampling,
        stops: Sequence[str],
        tell: Tell,
    ) -> list[tuple[str, tuple[int, ...]]]:
        wordings = [IncrementalDetokenizer(self.tokenizer, stops) for _ in requests]
        with Batch(self._session, len(requests), sampling) as batch:
            flights = [batch.join(request, count) for request, count in zip(requests, counts, strict=True)]
            while batch.busy:
                for flight in batch.step():
                    detokenizer = wordings[flight.number]
                    pieces = [detokenizer.add(flight.made[-1])]
                    if detokenizer.stopped:
                        batch.leave(flight)
                    elif flight.done:
                        pieces.append(detokenizer.end())
                    for piece in filter(None, pieces):
                        tell(flight.number, piece)
        return [(detokenizer.text, tuple(flight.made)) for detokenizer, flight in zip(wordings, flights, strict=True)]

    def _requests(self, encoded: Sequence[EncodedPrompt]) -> list[Request]:
        """Requests of all prompts; the vision engine runs once for all their images, or as often as it must."""
        found = iter(self._session.embeddings([item for prompt in encoded for item in prompt.items]))
        return [self._request(prompt, [next(found) for _ in prompt.items]) for prompt in encoded]

    def _request(self, prompt: EncodedPrompt, embeddings: Sequence[Tensor]) -> Request:
        """One request: its image tokens become virtual ids, one per row of the embeddings."""
        if not embeddings:
            return Request(prompt.token_ids, positions=prompt.positions)
        features, tokens = torch.cat(list(embeddings)), self._session.tokens
        image = tokens.image
        if image is None:  # a language model that was built alone has no image token
            image = self._processor.image_token_id
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
        return Request(tuple(virtual), features, positions=prompt.positions)
