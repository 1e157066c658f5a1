"""A system under test: something that encodes images and generates tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from attrs import evolve
from torch import Tensor
from typing_extensions import override

from ditto.engine import EngineTree
from ditto.runtime import Session, generate, open_session
from ditto.verify.inputs import Prompts
from ditto.verify.tree import requests_of


class System(ABC):
    """A system under test."""

    name: str
    device: torch.device

    @abstractmethod
    def features(self, pixels: Tensor) -> object:
        """Image features, left on the device that computes them."""

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
    def features(self, pixels: Tensor) -> object:
        return self._session.features(pixels)

    @override
    def answer(self, prompts: Prompts, new_tokens: int) -> list[tuple[int, ...]]:
        features = None if prompts.pixels is None else self._session.features(prompts.pixels)
        requests = requests_of(self._session, prompts, features)
        return [answer.ids for answer in generate(self._session, requests, new_tokens)]


def open_endless(tree: EngineTree, name: str) -> Session:
    """A session in which no token ends an answer."""
    tokens = tree.manifest.tokens
    if tokens is not None:
        tree = evolve(tree, manifest=evolve(tree.manifest, tokens=evolve(tokens, end=[])))
    return open_session(tree, name)
