"""Inputs of one step, as TensorRT-LLM's runtime fills them.

B sequences, of which those that compute their prompt come first; T their packed tokens; W the model's width.

Source: contract, LLM 2 and 4.2; multimodal 3.1.
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
    """The part of a step that one sequence computes.

    Args:
        sequence: number of the sequence, under which it holds cache blocks.
        ids: new token ids; ids from the vocabulary size on are rows of `features`, counted from 0.
        past: number of tokens that earlier steps have computed.
        prompt: number of tokens of the complete prompt.
        features: image embeddings [rows, W] of the prompt, or None.
    """

    sequence: int
    ids: tuple[int, ...]
    past: int
    prompt: int
    features: Tensor | None

    @property
    def is_context(self) -> bool:
        """Whether the sequence computes its prompt or a part of it."""
        return self.past < self.prompt


@frozen
class StepMaker:
    """Builder of the inputs of steps.

    Args:
        vocab_size: size of the vocabulary, and the first virtual token id.
        max_batch_size, max_seq_len, prompt_rows: limits of the engine.
        windows: maximum number of keys that a token attends to, by layer.
        width: width W of the prompt embedding table.
        dtype: dtype of that table.
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
        """Builder for an engine's llm/config.json.

        Args:
            layers: number of attention layers. The runtime repeats its list of windows over them; without a list, every
                token attends to all tokens before it.
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
        """`prompt_vocab_size`: rows of the prompt embedding table per sequence."""
        return self.prompt_rows // self.max_batch_size

    def inputs(self, parts: Sequence[Part], pools: BlockPools) -> dict[str, Tensor]:
        """All inputs that the runtime binds, by name.

        Args:
            parts: parts of the step, prompts first.
            pools: KV cache, with blocks allocated for the parts' tokens.
        Raises:
            ShapeError: a part exceeds the engine's limits.
        """
        self._check(parts)
        counts = [len(part.ids) for part in parts]
        totals = [part.past + len(part.ids) for part in parts]
        # For a prompt, the tokens of this call; for generation, those of the prompt.
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
            # The beam of each past token; there is only one beam.
            "cache_indirection": torch.zeros(len(parts), 1, self.max_seq_len, dtype=torch.int32),
            "kv_cache_block_offsets": offsets,
            "host_kv_cache_block_offsets": offsets.clone(),
            "host_kv_cache_pool_pointers": pools.pointers(),
            "host_kv_cache_pool_mapping": pools.layout.mapping(),
            **(self._prompt_table(parts) if self.prompt_rows else {}),
        }

    def _prompt_table(self, parts: Sequence[Part]) -> dict[str, Tensor]:
        """Prompt embedding table of all sequences, with the tasks of their tokens.

        The sequence at index i of this step has the rows from i * prompt_vocab_size on, and its tokens have task i.
        Unused rows are NaN.
        """
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
            raise ShapeError(f"{len(parts)} sequences in a step, the engine accepts {self.max_batch_size}")
        for part in parts:
            rows = 0 if part.features is None else len(part.features)
            if rows > self.prompt_rows_per_sequence:
                raise ShapeError(f"{rows} rows for the prompt table, each request has {self.prompt_rows_per_sequence}")
            if max(part.ids, default=0) >= self.vocab_size + rows:
                raise ShapeError(f"token {max(part.ids)} is none of {self.vocab_size} and {rows} rows of images")
            if not part.is_context and len(part.ids) != 1:
                raise ShapeError(f"{len(part.ids)} new tokens after a prompt, not one")
