"""A system under test: something that encodes images and generates tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from attrs import evolve
from typing_extensions import override

from ditto.engine import EngineTree
from ditto.runtime import Session, generate, open_session
from ditto.runtime.encoding import EncoderItem
from ditto.verify.inputs import Prompts
from ditto.verify.tree import embeddings, requests_of


class System(ABC):
    """A system under test."""

    name: str
    device: torch.device

    @abstractmethod
    def features(self, items: Sequence[EncoderItem]) -> object:
        """Image embeddings, left on the device that computes them."""

    @abstractmethod
    def answer(self, prompts: Prompts, new_tokens: int) -> list[tuple[int, ...]]:
        """The `new_tokens` greedy tokens of each prompt, on the host; end tokens do not end a row."""


class TreeSystem(System):
    """An engine tree in a session."""

    name = "ditto"

    def __init__(self, session: Session) -> None:
        self._session = session
        self.session_name, self.device = session.name, session.device

    @override
    def features(self, items: Sequence[EncoderItem]) -> object:
        return self._session.embeddings(items)

    @override
    def answer(self, prompts: Prompts, new_tokens: int) -> list[tuple[int, ...]]:
        requests = requests_of(self._session, prompts, embeddings(self._session, prompts))
        return [answer.ids for answer in generate(self._session, requests, new_tokens)]


def open_endless(tree: EngineTree, name: str) -> Session:
    """A session in which no token ends an answer."""
    tokens = tree.manifest.tokens
    if tokens is not None:
        tree = evolve(tree, manifest=evolve(tree.manifest, tokens=evolve(tokens, end=[])))
    return open_session(tree, name)
