"""Who is measured: an engine tree in a session. B rows, S tokens of a prompt."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from attrs import evolve
from torch import Tensor
from typing_extensions import override

from ditto.engine import EngineTree
from ditto.runtime import Request, Session, generate, open_session
from ditto.verify.inputs import Prompts


class Contender(ABC):
    """Turns pictures into features and prompts into tokens."""

    name: str
    device: torch.device

    @abstractmethod
    def features(self, pixels: Tensor) -> object:
        """Features of pictures, left where they are computed."""

    @abstractmethod
    def answer(self, prompts: Prompts, new_tokens: int) -> list[tuple[int, ...]]:
        """The most likely `new_tokens` tokens of each prompt, on the host; end tokens do not end a row."""


class TreeContender(Contender):
    """A session of an engine tree."""

    name = "ditto"

    def __init__(self, session: Session) -> None:
        self._session = session
        self.session_name, self.device = session.name, session.device

    @override
    def features(self, pixels: Tensor) -> object:
        return self._session.features(pixels)

    @override
    def answer(self, prompts: Prompts, new_tokens: int) -> list[tuple[int, ...]]:
        requests = requests_of(self._session, prompts)
        return [answer.ids for answer in generate(self._session, requests, new_tokens)]


def open_endless(tree: EngineTree, name: str) -> Session:
    """A session of a tree whose answers no token ends."""
    tokens = tree.manifest.tokens
    if tokens is not None:
        tree = evolve(tree, manifest=evolve(tree.manifest, tokens=evolve(tokens, end=[])))
    return open_session(tree, name)


def requests_of(session: Session, prompts: Prompts) -> list[Request]:
    """Prompts as a session takes them: image tokens become virtual ids, one for each row of features."""
    image, vocab_size = session.tokens.image, session.tokens.vocab_size
    if prompts.pixels is None:
        return [Request(tuple(row)) for row in prompts.ids.tolist()]
    places = prompts.ids == image
    virtual = torch.where(places, vocab_size + places.cumsum(1) - 1, prompts.ids).tolist()
    parts = session.features(prompts.pixels).flatten(0, 1).split(places.sum(1).tolist())
    return [Request(tuple(row), rows) for row, rows in zip(virtual, parts, strict=True)]
