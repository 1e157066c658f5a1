"""From prompts and pictures to answers: Hugging Face's processor in front of a session."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from ditto.errors import PromptError, TreeError
from ditto.families.wording import Wording
from ditto.runtime import GREEDY, Batch, Request, Sampling, Session

_DEFAULT_NEW_TOKENS = 128
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
    Raises:
        TreeError: there is none.
    """

    def __init__(self, session: Session, processor: str | Path | None = None) -> None:
        self._session = session
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
        sampling: Sampling = GREEDY,
        stops: Sequence[str] = (),
        tell: Tell = _tell_nobody,
    ) -> Reply:
        """One answer per prompt, run as one batch.

        Args:
            prompts: as the model wants them, with an image token where a picture belongs.
            images: picture files in the order of the image tokens; one picture serves all prompts that have one place.
            max_new_tokens: per prompt; None for 128, or what the engine has room for.
            sampling: how tokens are chosen; without it, the most likely ones.
            stops: strings at which an answer ends; they are not part of it.
            tell: called with a prompt's number, counted from 0, and the next piece of its answer, as pieces come.
        Raises:
            PromptError: a prompt or a picture that the engines cannot take.
        """
        start = time.perf_counter()
        encoded = self._encode(prompts, [load_picture(path) for path in images])
        encoded_at = time.perf_counter()
        requests = self._requests(encoded)
        seen_at = time.perf_counter()
        if max_new_tokens is None:
            room = self._session.limits.max_seq_len - max((len(request.ids) for request in requests), default=0)
            max_new_tokens = max(1, min(_DEFAULT_NEW_TOKENS, room))
        answers = self._generate(requests, max_new_tokens, sampling, stops, tell)
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

    def _generate(
        self, requests: Sequence[Request], max_new_tokens: int, sampling: Sampling, stops: Sequence[str], tell: Tell
    ) -> list[tuple[str, tuple[int, ...]]]:
        self._session.limits.check(requests, max_new_tokens)
        wordings = [Wording(self.tokenizer, stops) for _ in requests]
        with Batch(self._session, len(requests), sampling) as batch:
            flights = [batch.join(request, max_new_tokens) for request in requests]
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
        for row, index in enumerate(places):
            ids[index] = tokens.vocab_size + row
        return Request(tuple(ids), features)


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
