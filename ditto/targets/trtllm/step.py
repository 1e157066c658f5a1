"""The inputs of one step, as TensorRT-LLM's runtime fills them (contract, LLM 2 and 4.2; multimodal 3.1).

B sequences, those that compute their prompt first; T packed tokens of them; W the model's width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from ditto.errors import ShapeError
from ditto.targets.trtllm.blocks import BlockPools
from ditto.targets.trtllm.sequences import CONTEXT, GENERATION


@frozen(eq=False)
class Part:
    """What one sequence computes in a step.

    Args:
        sequence: its number, under which it holds cache blocks.
        ids: new tokens; those at or above the vocabulary are rows of `features`, counted from 0.
        past: tokens that earlier steps have computed.
        prompt: tokens of the whole prompt.
        features: [rows, W] of the prompt's pictures, or None.
    """

    sequence: int
    ids: tuple[int, ...]
    past: int
    prompt: int
    features: Tensor | None

    @property
    def is_context(self) -> bool:
        """Whether it computes (a part of) its prompt."""
        return self.past < self.prompt


@frozen
class StepMaker:
    """Makes the inputs of steps.

    Args:
        vocab_size: virtual ids start here.
        max_batch_size, max_seq_len, prompt_rows: of the engine.
        windows: keys that a token sees at most, by layer.
        width: of the prompt embedding table, W.
        dtype: of that table.
    """

    vocab_size: int
    max_batch_size: int
    max_seq_len: int
    prompt_rows: int
    windows: tuple[int, ...]
    width: int
    dtype: torch.dtype

    @staticmethod
    def of(config: dict[str, Any], layers: int) -> StepMaker:
        """From an engine's llm/config.json.

        Args:
            layers: with attention. The runtime repeats its list of windows over them; without one, all tokens are seen.
        """
        model, build = config["pretrained_config"], config["build_config"]
        windows = (model["runtime_defaults"] or {}).get("max_attention_window") or [build["max_seq_len"]]
        return StepMaker(
            vocab_size=model["vocab_size"],
            max_batch_size=build["max_batch_size"],
            max_seq_len=build["max_seq_len"],
            prompt_rows=build["max_prompt_embedding_table_size"],
            windows=tuple(windows[layer % len(windows)] for layer in range(layers)),
            width=model["hidden_size"],
            dtype=getattr(torch, model["dtype"]),
        )

    @property
    def prompt_rows_per_sequence(self) -> int:
        """`prompt_vocab_size`: rows of the prompt embedding table that belong to each sequence of a step."""
        return self.prompt_rows // self.max_batch_size

    def inputs(self, parts: Sequence[Part], pools: BlockPools) -> dict[str, Tensor]:
        """Everything that the runtime binds, by name.

        Args:
            parts: prompts first.
            pools: hold blocks for the parts' tokens.
        Raises:
            ShapeError: a part is more than the engine takes.
        """
        self._check(parts)
        counts = [len(part.ids) for part in parts]
        totals = [part.past + len(part.ids) for part in parts]
        # Of a prompt: the tokens of this call. Of generation: the prompt's.
        contexts = [count if part.is_context else part.prompt for part, count in zip(parts, counts, strict=True)]
        pasts = [total if part.is_context else part.past for part, total in zip(parts, totals, strict=True)]
        offsets = pools.offsets([part.sequence for part in parts])
        bound = {
            "input_ids": [token for part in parts for token in part.ids],
            "position_ids": [part.past + index for part in parts for index in range(len(part.ids))],
            "last_token_ids": [sum(counts[: number + 1]) for number in range(len(parts))],
            "sequence_length": totals,
            "host_request_types": [CONTEXT if part.is_context else GENERATION for part in parts],
            "host_past_key_value_lengths": pasts,
            "context_lengths": contexts,
            "host_context_lengths": contexts,
            "host_max_attention_window_sizes": list(self.windows),
            "host_sink_token_length": [0],
        }
        return {
            **{name: torch.tensor(numbers, dtype=torch.int32) for name, numbers in bound.items()},
            "host_runtime_perf_knobs": torch.full((16,), -1, dtype=torch.int64),
            "host_context_progress": torch.zeros(1, dtype=torch.int64),
            # Which beam each past token comes from: there is one.
            "cache_indirection": torch.zeros(len(parts), 1, self.max_seq_len, dtype=torch.int32),
            "kv_cache_block_offsets": offsets,
            "host_kv_cache_block_offsets": offsets.clone(),
            "host_kv_cache_pool_pointers": pools.pointers(),
            "host_kv_cache_pool_mapping": pools.layout.mapping(),
            **(self._prompt_table(parts) if self.prompt_rows else {}),
        }

    def _prompt_table(self, parts: Sequence[Part]) -> dict[str, Tensor]:
        """The table of all sequences: the one at place i of this step owns rows from i * prompt_vocab_size on, and its
        tokens say i. Rows that belong to nobody are NaN."""
        rows = self.prompt_rows_per_sequence
        table = torch.full((self.prompt_rows, self.width), float("nan"), dtype=self.dtype)
        for place, part in enumerate(parts):
            if part.features is not None:
                table[place * rows : place * rows + len(part.features)] = part.features.to(self.dtype)
        tasks = [place for place, part in enumerate(parts) for _ in part.ids]
        return {
            "prompt_embedding_table": table,
            "tasks": torch.tensor(tasks, dtype=torch.int32),
            "prompt_vocab_size": torch.tensor([rows], dtype=torch.int32),
        }

    def _check(self, parts: Sequence[Part]) -> None:
        if not 0 < len(parts) <= self.max_batch_size:
            raise ShapeError(f"{len(parts)} sequences in a step, the engine takes {self.max_batch_size}")
        for part in parts:
            rows = 0 if part.features is None else len(part.features)
            if rows > self.prompt_rows_per_sequence:
                raise ShapeError(f"{rows} rows for the prompt table, each request has {self.prompt_rows_per_sequence}")
            if max(part.ids, default=0) >= self.vocab_size + rows:
                raise ShapeError(f"token {max(part.ids)} is none of {self.vocab_size} and {rows} rows of pictures")
            if not part.is_context and len(part.ids) != 1:
                raise ShapeError(f"{len(part.ids)} new tokens after a prompt, not one")
