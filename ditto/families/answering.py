"""From prompts and pictures to answers: Hugging Face's processor in front of a session."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import evolve, frozen
from torch import Tensor

from ditto.errors import PromptError, TreeError
from ditto.families.defaults import GenerationDefaults
from ditto.families.wording import Wording
from ditto.runtime import Batch, Request, Sampling, Session

Tell = Callable[[int, str], None]


def _tell_nobody(number: int, piece: str) -> None:
    del number, piece


@frozen
class Reply:
    """Answers to a batch of prompts.

    Args:
        answers: texts, special tokens left out.
        tokens: ids of the new tokens, the end token included.
        session: what ran them.
        seconds: wall time of preprocessing, vision and generation.
    """

    answers: tuple[str, ...]
    tokens: tuple[tuple[int, ...], ...]
    session: str
    seconds: dict[str, float]


class Answerer:
    """Answers prompts about pictures with a tree.

    Args:
        session: runs the tree.
        processor: folder or hub id with tokenizer and image processor; None for the tree's own.
        with_defaults: honour the model's own generation defaults: penalties, sampling, limits, stop strings.
    Raises:
        TreeError: there is none.
        ConfigError: the model's generation defaults ask for what is not supported.
    """

    def __init__(self, session: Session, processor: str | Path | None = None, *, with_defaults: bool = True) -> None:
        self._session = session
        self.defaults = GenerationDefaults.of(session.tree, with_defaults)
        self._has_vision = "vision" in session.tree.manifest.components
        folder = processor or session.tree.processor_folder
        if folder is None:
            raise TreeError(
                "the tree has no tokenizer files",
                where=str(session.tree.root),
                remedy="name the model's folder or hub id with --hf-model",
            )
        self._processor = load_processor(folder, self._has_vision)

    @property
    def tokenizer(self) -> Any:
        return getattr(self._processor, "tokenizer", self._processor)

    def answer(
        self,
        prompts: Sequence[str],
        images: Sequence[str | Path] = (),
        max_new_tokens: int | None = None,
        sampling: Sampling | None = None,
        stops: Sequence[str] = (),
        tell: Tell = _tell_nobody,
    ) -> Reply:
        """One answer per prompt, run as one batch.

        Args:
            prompts: as the model wants them, with an image token where a picture belongs.
            images: picture files in the order of the image tokens; one picture serves all prompts that have one place.
            max_new_tokens: per prompt; None for as many as the model's defaults say, else 128, or what the engine has
                room for.
            sampling: how tokens are chosen; None for as the model's defaults say, else the most likely ones.
            stops: strings at which an answer ends, besides the model's own; they are not part of it.
            tell: called with a prompt's number, counted from 0, and the next piece of its answer, as pieces come.
        Raises:
            PromptError: a prompt or a picture that the engines cannot take.
            ConfigError: the model's generation defaults cannot be honoured.
        """
        start = time.perf_counter()
        encoded = self._encode(prompts, [load_picture(path) for path in images])
        encoded_at = time.perf_counter()
        requests = self._requests(encoded)
        seen_at = time.perf_counter()
        counts = self._counts(requests, max_new_tokens)
        requests, sampling = self._processing(encoded, requests, counts, sampling)
        answers = self._generate(requests, counts, sampling, (*stops, *self.defaults.stops), tell)
        done = time.perf_counter()
        return Reply(
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
        """New tokens of each request at most.

        Raises:
            PromptError: the engine has no room for them.
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
        encoded: Sequence[tuple[list[int], Tensor | None]],
        requests: Sequence[Request],
        counts: Sequence[int],
        sampling: Sampling | None,
    ) -> tuple[list[Request], Sampling]:
        """The requests with what changes their logits, and how tokens are sampled then."""
        wanted = chosen = self.defaults.sampling() if sampling is None else sampling
        made: list[Request] = []
        for (ids, _), request, count in zip(encoded, requests, counts, strict=True):
            process, chosen = self.defaults.processed(ids, count, wanted)
            made.append(evolve(request, process=process))
        return made, chosen

    def _generate(
        self,
        requests: Sequence[Request],
        counts: Sequence[int],
        sampling: Sampling,
        stops: Sequence[str],
        tell: Tell,
    ) -> list[tuple[str, tuple[int, ...]]]:
        wordings = [Wording(self.tokenizer, stops) for _ in requests]
        with Batch(self._session, len(requests), sampling) as batch:
            flights = [batch.join(request, count) for request, count in zip(requests, counts, strict=True)]
            while batch.busy:
                for flight in batch.step():
                    wording = wordings[flight.number]
                    pieces = [wording.add(flight.made[-1])]
                    if wording.stopped:
                        batch.leave(flight)
                    elif flight.done:
                        pieces.append(wording.end())
                    for piece in filter(None, pieces):
                        tell(flight.number, piece)
        return [(wording.text, tuple(flight.made)) for wording, flight in zip(wordings, flights, strict=True)]

    def _encode(self, prompts: Sequence[str], images: Sequence[Any]) -> list[tuple[list[int], Tensor | None]]:
        if not self._has_vision:
            if images:
                raise PromptError("the tree has no vision engine", remedy="leave the pictures out")
            return [(list(self._processor(prompt)["input_ids"]), None) for prompt in prompts]
        encoded: list[tuple[list[int], Tensor | None]] = []
        for prompt, pictures in zip(prompts, assign(prompts, images, image_token_of(self._processor)), strict=True):
            made = self._processor(text=[prompt], images=pictures or None, return_tensors="pt")
            encoded.append((made["input_ids"][0].tolist(), made.get("pixel_values")))
        return encoded

    def _requests(self, encoded: Sequence[tuple[list[int], Tensor | None]]) -> list[Request]:
        """The pictures of all prompts go through the vision engine together."""
        pictures = [pixels for _, pixels in encoded if pixels is not None]
        features = iter(
            self._session.features(torch.cat(pictures)).split([len(part) for part in pictures]) if pictures else ()
        )
        return [
            Request(tuple(ids)) if pixels is None else self._request(ids, next(features).flatten(0, 1))
            for ids, pixels in encoded
        ]

    def _request(self, ids: list[int], features: Tensor) -> Request:
        """Image tokens become virtual ids, one for each row of features."""
        tokens = self._session.tokens
        image = tokens.image
        if image is None:  # a language model that was built alone does not know the pictures' token
            image = self.tokenizer.convert_tokens_to_ids(image_token_of(self._processor))
        places = [index for index, token in enumerate(ids) if token == image]
        if len(places) != len(features):
            raise PromptError(
                f"the processor makes room for {len(places)} rows of image features, the vision engine gives "
                f"{len(features)}",
                remedy="use the processor of the model that the tree was built from",
            )
        virtual = list(ids)
        for row, index in enumerate(places):
            virtual[index] = tokens.vocab_size + row
        return Request(tuple(virtual), features)


def load_picture(path: str | Path) -> Any:
    """A picture file as an RGB image.

    Raises:
        PromptError: there is no such file, or it is no picture.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except FileNotFoundError:
        raise PromptError("there is no such picture", where=str(path), remedy="check the path") from None
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise PromptError("this file is no picture", where=str(path), remedy="give a PNG or JPEG file") from error


def image_token_of(processor: Any) -> str:
    """What stands in a prompt for a picture."""
    return getattr(processor, "image_token", None) or "<image>"


def assign(prompts: Sequence[str], images: Sequence[Any], token: str) -> list[list[Any]]:
    """The pictures of each prompt.

    Raises:
        PromptError: places and pictures do not match.
    """
    places = [prompt.count(token) for prompt in prompts]
    for number, count in enumerate(places, 1):
        if images and not count:
            raise PromptError(
                f"prompt {number} has no {token} token, so it has no place for a picture",
                remedy=f"write {token} where the picture belongs, e.g. 'USER: {token}\\nWhat is this? ASSISTANT:'",
            )
    if len(images) == 1 and all(count == 1 for count in places):
        return [[images[0]] for _ in prompts]
    if sum(places) != len(images):
        raise PromptError(
            f"places for pictures in the prompts: {sum(places)}; pictures given: {len(images)}",
            remedy=f"give one picture for each {token}, in their order",
        )
    left = iter(images)
    return [[next(left) for _ in range(count)] for count in places]


def load_processor(folder: str | Path, has_vision: bool) -> Any:
    """Hugging Face's processor, or the tokenizer of a text model.

    Raises:
        TreeError: transformers cannot load it.
    """
    from transformers import AutoProcessor, AutoTokenizer

    try:
        return (AutoProcessor if has_vision else AutoTokenizer).from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TreeError(
            f"transformers cannot load the {'processor' if has_vision else 'tokenizer'}: {reason}",
            where=str(folder),
            remedy="name the model's folder or hub id with --hf-model",
        ) from error
