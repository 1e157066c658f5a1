"""Interface of sessions, which run an engine tree: image features and text generation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor

from ditto.engine import NEWLINE, NEWLINE_FILE, EngineTree, Tokens
from ditto.errors import PromptError, TreeError
from ditto.network import Spec
from ditto.ops.spans import SPAN_IDS
from ditto.runtime.encoding import EncoderItem, EncoderShapes, TokenPositions
from ditto.runtime.sampling import LogitsProcessor
from ditto.runtime.weights import tensor_beside


@frozen(eq=False)
class Request:
    """One prompt.

    Args:
        ids: token ids; ids from the vocabulary size on are virtual: id - vocabulary size is a row of `features`.
        features: [image tokens, width], embeddings of all images of the prompt, concatenated, or None.
        process: logits processor, applied before each new token is chosen, or None.
        positions: positions of the tokens; None if they are the tokens' indices.
        spans: ids of the tokens' spans, int32 [S], see `ditto.ops.spans`; None if all tokens are causal.
        top_logprobs: number of most likely tokens to report with each new token; None to report nothing.
    """

    ids: tuple[int, ...]
    features: Tensor | None = None
    process: LogitsProcessor | None = None
    positions: TokenPositions | None = None
    spans: Tensor | None = None
    top_logprobs: int | None = None


def position_axes(tree: EngineTree) -> int:
    """Positions of each token that a tree's language model takes: 3 with multimodal rope, else 1."""
    spec = Spec.parse(tree.component("llm").inputs["position_ids"])
    return int(str(spec.shape[0])) if spec.rank > 2 else 1


@frozen
class RequestLimits:
    """Limits and vocabulary size of a tree's language model.

    Args:
        position_axes: positions of each token.
        has_spans: whether tokens of prompts with images form spans.
        uncounted: token id that the model does not count as a position, None if it counts all.
    """

    max_batch_size: int
    max_input_len: int
    max_seq_len: int
    max_prompt_embedding_table_size: int
    vocab_size: int
    position_axes: int = field(default=1, kw_only=True)
    has_spans: bool = field(default=False, kw_only=True)
    uncounted: int | None = field(default=None, kw_only=True)

    @staticmethod
    def of(tree: EngineTree) -> RequestLimits:
        """Limits of a tree.

        Raises:
            TreeError: the manifest does not state them.
        """
        stated, tokens = tree.limits, tree.manifest.tokens
        if tokens is None:
            raise TreeError("the tree has no language model", where=str(tree.root), remedy="run a whole tree")
        return RequestLimits(
            max_batch_size=stated.max_batch_size,
            max_input_len=stated.max_input_len,
            max_seq_len=stated.max_seq_len,
            max_prompt_embedding_table_size=stated.max_prompt_embedding_table_size,
            vocab_size=tokens.vocab_size,
            position_axes=position_axes(tree),
            has_spans=SPAN_IDS in tree.component("llm").inputs,
            uncounted=tokens.uncounted,
        )

    def check(self, requests: Sequence[Request], max_new_tokens: int) -> None:
        """Check a batch of requests.

        Raises:
            PromptError: a request is invalid, or the batch exceeds a limit of the engine.
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
            rows = 0 if request.features is None else len(request.features)
            wrong = [token for token in request.ids if not 0 <= token < self.vocab_size + rows]
            if wrong:
                behind = f", and with its images' features to {self.vocab_size + rows - 1}" if rows else ""
                raise PromptError(
                    f"prompt {number} holds token {wrong[0]}; the model's tokens go from 0 to {self.vocab_size - 1}"
                    + behind,
                    remedy="use the tokenizer of the model that the tree was built from",
                )
            if self.uncounted is not None and self.uncounted in request.ids:
                raise PromptError(
                    f"prompt {number} holds the padding token {self.uncounted}, which the model does not count as a "
                    "position",
                    remedy="give prompts without padding",
                )
            if length > self.max_input_len:
                raise PromptError(
                    f"prompt {number} has {length} tokens, the engine accepts {self.max_input_len}",
                    remedy="shorten it, or build with a larger --max-input-len",
                )
            if length + max_new_tokens > self.max_seq_len:
                raise PromptError(
                    f"prompt {number} has {length} tokens; with {max_new_tokens} new ones that is more than the "
                    f"engine's {self.max_seq_len}",
                    remedy=f"ask for at most {self.max_seq_len - length} new tokens, or build with a larger "
                    "--max-seq-len",
                )
            self._check_positions(request, number)
            self._check_spans(request, number)
        rows = sum(0 if request.features is None else len(request.features) for request in requests)
        if rows > self.max_prompt_embedding_table_size:
            raise PromptError(
                f"the images need {rows} rows of the prompt table, the engine has "
                f"{self.max_prompt_embedding_table_size}",
                remedy="send fewer images at once, or build with a larger --max-images or --prompt-table",
            )

    def _check_positions(self, request: Request, number: int) -> None:
        """Check that a request with images states its positions if they have several axes."""
        axes, positions = self.position_axes, request.positions
        is_stated = request.features is not None or positions is not None
        wanted = [axes, len(request.ids)] if axes > 1 and is_stated else None
        found = None if positions is None else list(positions.ids.shape)
        if found != wanted:
            raise PromptError(
                f"the positions of prompt {number} are {found or 'the indices of its tokens'}, the engine expects "
                f"{wanted or 'indices'}",
                remedy="encode the prompt with the processor of the model that the tree was built from",
            )

    def _check_spans(self, request: Request, number: int) -> None:
        """Check that a request with images states its spans if the engine has them."""
        spans = request.spans
        wanted = len(request.ids) if self.has_spans and (request.features is not None or spans is not None) else None
        found = None if spans is None else len(spans)
        if found != wanted:
            raise PromptError(
                f"prompt {number} has span ids of {found or 'no'} tokens, the engine expects {wanted or 'none'}",
                remedy="encode the prompt with the processor of the model that the tree was built from",
            )


@frozen(eq=False)
class ScheduledRow:
    """Work of one row of a batch in a step.

    Args:
        row: index in the batch.
        request: the request that occupies the row.
        past: tokens of the row computed by earlier steps; 0 means that this step runs the prompt, otherwise it runs
            the last sampled token.
    """

    row: int
    request: Request
    past: int


class LlmRunner(ABC):
    """Runner of a batch: rows with one KV cache each, which requests join and leave between steps."""

    device = torch.device("cpu")  # the device that computes
    lookahead = 0  # steps to launch before the tokens of the first one are read

    def takes(self, scheduled: Sequence[ScheduledRow]) -> bool:
        """Whether one step can compute these rows; true for the oldest alone."""
        del scheduled
        return True

    def sampled(self, batch: int) -> Tensor:
        """Buffer for the last sampled token of each row: int64 [batch], on `device`.

        Its initial values are valid token ids.
        """
        return torch.zeros(batch, dtype=torch.int64, device=self.device)

    @abstractmethod
    def step(self, scheduled: Sequence[ScheduledRow], sampled: Tensor) -> Tensor:
        """Compute the next tokens of some rows, each at most once.

        Args:
            sampled: int64 [rows], on `device`, the last sampled token of each row.
        Returns:
            float32 [rows, vocabulary], logits after the last token of each scheduled row, on `device`, valid until the
            next step.
        """

    @abstractmethod
    def leave(self, row: int) -> None:
        """Release a row whose request is done; the next request there begins with `past` 0."""

    def working(self) -> AbstractContextManager[None]:
        """Context in which torch's work is ordered with the runner's."""
        return nullcontext()

    def reading(self, tensor: Tensor) -> Callable[[], list[Any]]:
        """A callable that waits for and returns the current values of `tensor`, as nested lists.

        Current means at this point of the runner's work; later changes are not seen.
        """
        values: list[Any] = tensor.cpu().numpy().tolist()
        return lambda: values

    def close(self) -> None:  # noqa: B027
        """End the batch; do not use the runner afterwards."""


class Session(ABC):
    """A session that runs the engines of a tree.

    Args:
        tree: the tree to run.
    """

    name: str
    device = torch.device("cpu")  # the device that computes
    rounds_to_tf32 = False  # whether products round float32 operands to TF32

    def __init__(self, tree: EngineTree) -> None:
        self.tree = tree
        self.limits = RequestLimits.of(tree)
        assert tree.manifest.tokens is not None  # `RequestLimits.of` has checked it
        self.tokens: Tokens = tree.manifest.tokens

    @cached_property
    def encoder(self) -> EncoderShapes:
        """Shapes of the vision engine.

        Raises:
            TreeError: the tree has none.
        """
        return EncoderShapes(self.tree.component("vision"))

    def embeddings(self, items: Sequence[EncoderItem]) -> list[Tensor]:
        """Image embeddings of each item: [rows, width].

        Raises:
            PromptError: an item does not match the engine's inputs.
        """
        if not items:
            return []
        for item in items:
            self.encoder.check(item)
        found = [self.encode(inputs) for inputs in self.encoder.batches(items, self.tree.max_images)]
        parts = [rows for part in found for rows in (part.unbind() if self.encoder.batch is not None else (part,))]
        return parts if self.encoder.assembly is None else self.encoder.assembled(items, parts, self.image_newline)

    @cached_property
    def image_newline(self) -> Tensor:
        """The embedding that ends a row of an image of tiles: [width].

        Raises:
            TreeError: its file has changed.
        """
        return tensor_beside(self.tree, "vision", NEWLINE_FILE, NEWLINE)

    @abstractmethod
    def encode(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Run the vision engine once.

        Args:
            inputs: tensors by input name, at most one batch.
        """

    @abstractmethod
    def start(self, batch: int) -> LlmRunner:
        """Start a runner with empty KV caches for `batch` rows."""

    @property
    def table_dtype(self) -> torch.dtype:
        """The dtype of the prompt embedding table."""
        dtype: Any = getattr(torch, self.tree.component("llm").spec.dtype)
        return dtype
