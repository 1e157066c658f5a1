"""Sessions run an engine tree: features of pictures, answers to prompts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from ditto.engine import EngineTree, Tokens
from ditto.errors import PromptError, TreeError


@frozen(eq=False)
class Request:
    """One prompt.

    Args:
        ids: token ids; those at or above the vocabulary are rows of `features`, counted from 0.
        features: [rows, width] of all pictures of the prompt, one after another, or None.
    """

    ids: tuple[int, ...]
    features: Tensor | None = None


@frozen
class RequestLimits:
    """What a tree's language model takes, read from its config.json."""

    max_batch_size: int
    max_input_len: int
    max_seq_len: int
    max_prompt_embedding_table_size: int

    @staticmethod
    def of(tree: EngineTree) -> RequestLimits:
        """The limits of a tree.

        Raises:
            TreeError: its config.json does not state them.
        """
        build = tree.config("llm").get("build_config", {})
        names = ("max_batch_size", "max_input_len", "max_seq_len", "max_prompt_embedding_table_size")
        if not all(isinstance(build.get(name), int) for name in names):
            raise TreeError("llm/config.json does not state the engine's limits", where=str(tree.root))
        return RequestLimits(*(build[name] for name in names))

    def check(self, requests: Sequence[Request], max_new_tokens: int) -> None:
        """Check a batch.

        Raises:
            PromptError: it is more than the engine takes.
        """
        if not requests:
            raise PromptError("there is no prompt", remedy="give at least one")
        if max_new_tokens < 1:
            raise PromptError(f"{max_new_tokens} new tokens were asked for", remedy="ask for at least 1")
        if len(requests) > self.max_batch_size:
            raise PromptError(
                f"{len(requests)} prompts are more than the engine's batch of {self.max_batch_size}",
                remedy=f"send at most {self.max_batch_size} at once, or build with a larger --batch",
            )
        for number, request in enumerate(requests, 1):
            length = len(request.ids)
            if not length:
                raise PromptError(f"prompt {number} is empty")
            if length > self.max_input_len:
                raise PromptError(
                    f"prompt {number} has {length} tokens, the engine takes {self.max_input_len}",
                    remedy="shorten it, or build with a larger --max-input-len",
                )
            if length + max_new_tokens > self.max_seq_len:
                raise PromptError(
                    f"prompt {number} has {length} tokens; with {max_new_tokens} new ones that is more than the "
                    f"engine's {self.max_seq_len}",
                    remedy=f"ask for at most {self.max_seq_len - length} new tokens, or build with a larger "
                    "--max-seq-len",
                )
        rows = sum(0 if request.features is None else len(request.features) for request in requests)
        if rows > self.max_prompt_embedding_table_size:
            raise PromptError(
                f"the pictures need {rows} rows of the prompt table, the engine has "
                f"{self.max_prompt_embedding_table_size}",
                remedy="send fewer pictures at once, or build with a larger --prompt-table",
            )


@frozen(eq=False)
class Turn:
    """What one row of a batch computes in a step.

    Args:
        row: the row's place in the batch.
        request: that took the row.
        ids: new tokens in order: the prompt, or the token that was chosen last.
        past: tokens of the row that earlier steps have computed.
    """

    row: int
    request: Request
    ids: tuple[int, ...]
    past: int


class LlmRunner(ABC):
    """A batch in flight: rows with a KV cache each, which requests take and leave between steps."""

    def takes(self, turns: Sequence[Turn]) -> bool:
        """Whether one step can compute these turns; the oldest alone it always can."""
        del turns
        return True

    @abstractmethod
    def step(self, turns: Sequence[Turn]) -> Tensor:
        """Compute the next tokens of some rows, at most one turn of each.

        Returns:
            float32 [turns, vocabulary], logits after each turn's last token, on the CPU.
        """

    @abstractmethod
    def leave(self, row: int) -> None:
        """The row's request is done; another may take the row, beginning with `past` 0."""


class Session(ABC):
    """Runs the engines of a tree.

    Args:
        tree: to run.
    """

    name: str

    def __init__(self, tree: EngineTree) -> None:
        self.tree = tree
        self.limits = RequestLimits.of(tree)
        tokens = tree.manifest.tokens
        if tokens is None:
            raise TreeError("the tree has no language model", where=str(tree.root), remedy="run a whole tree")
        self.tokens: Tokens = tokens

    @abstractmethod
    def features(self, pixels: Tensor) -> Tensor:
        """Features of pictures: [images, channels, height, width] → [images, rows, width], on the CPU.

        Raises:
            PromptError: the pictures do not fit the engine.
        """

    @abstractmethod
    def start(self, batch: int) -> LlmRunner:
        """A runner with an empty cache for a batch of that size."""

    @property
    def table_dtype(self) -> torch.dtype:
        """The dtype of the prompt embedding table."""
        dtype: Any = getattr(torch, self.tree.component("llm").dtype)
        return dtype
