"""Several sequences through a described packed decoder, beside Hugging Face."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from attrs import define, field
from torch import Tensor

from ditto import EngineTree, LlmBuilder
from ditto.configs import TrtllmConfig
from ditto.runtime.packed import PackedSession
from ditto.targets.trtllm.runtime import PackedRuntime
from ditto.targets.trtllm.step import Part
from tests.support.decoding import eager


def packed_tree(model: Any, out: Path, block: int = 16, dtype: torch.dtype | None = None, **options: Any) -> EngineTree:
    """A text model's tree for the packed target, batch 3."""
    builder = LlmBuilder.from_model(model).with_batch(3).with_target("trtllm").with_dtype(dtype or "auto")
    return builder.with_trtllm(TrtllmConfig(tokens_per_block=block, **options)).build(out)


def runtime_of(tree: EngineTree, sequences: int = 3) -> PackedRuntime:
    """The runtime's part, for a tree."""
    (profile,) = tree.component("llm").spec.profiles
    return PackedRuntime(*PackedSession(tree).network("llm"), tree.config("llm"), profile, sequences)


@define
class Text:
    """A sequence of known tokens, computed part by part."""

    sequence: int
    prompt: list[int]
    rest: list[int]
    past: int = field(default=0)

    def part(self, count: int = 0) -> Part:
        """Its next tokens: `count` of the prompt (0 for what is left of it), or the next one after it."""
        start, length = self.past, len(self.prompt)
        ids = self.prompt[start : start + count if count else length] or [self.rest[start - length]]
        self.past += len(ids)
        return Part(self.sequence, tuple(ids), start, length, None)

    @property
    def tokens(self) -> Tensor:
        """What is computed so far: int64 [1, tokens]."""
        return torch.tensor([(self.prompt + self.rest)[: self.past]])


def texts(seed: int = 0) -> list[Text]:
    """Three sequences; a prompt is shorter than a block of 16, one is longer, one becomes so."""
    torch.manual_seed(seed)
    drawn = [torch.randint(4, 120, (length,)).tolist() for length in (20, 11, 25)]
    return [Text(index, ids[:split], ids[split:]) for index, (ids, split) in enumerate(zip(drawn, (14, 5, 19)))]


def interleaved(runtime: PackedRuntime, *models: Any) -> list[tuple[Tensor, ...]]:
    """Logits after the last tokens of every part (the runtime's, each model's), while sequences join, go on, leave and
    join."""
    first, second, third = texts()
    results: list[tuple[Tensor, ...]] = []

    def step(*going: Text) -> None:
        logits = runtime.step([text.part() for text in going])
        for text, found in zip(going, logits, strict=True):
            with torch.no_grad():
                wanted = [eager(model)(input_ids=text.tokens).logits[0, -1].float() for model in models]
            results.append((found, *wanted))

    step(first)
    step(first, second)  # one generates, one begins
    step(second, first)
    step(first, third, second)
    runtime.release(second.sequence)
    step(third, first)
    again = Text(second.sequence, third.prompt[3:], [77, 78])
    step(first, again, third)  # the free blocks are used again
    step(again, third)
    return results
