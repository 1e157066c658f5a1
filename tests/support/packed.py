"""The least that a runtime of packed tokens does: sequences in a batch, blocks of a paged cache, lengths as the
executor writes them (contract, LLM 4.2 and 4.5). No scheduling; a test says which sequences take part."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from types import SimpleNamespace

import torch
from torch import Tensor

from ditto.builders.llm import LlmBuilder
from ditto.configs import TrtllmConfig
from ditto.network import Network
from ditto.reference import Constants, run
from ditto.targets.trtllm.plugins import GPTAttention
from tests.support.describing import engine_of
from tests.support.models import TEXT_MODELS

MAX_SEQ_LEN = 24


class PackedCalls:
    """Runs a packed network, call by call, on sequences that it is given.

    Args:
        blocks: of the pool, handed out in a shuffled order, so that neighbours in a sequence are none in memory.
    """

    def __init__(self, network: Network, constants: Constants, max_seq_len: int, blocks: int = 64) -> None:
        self.network, self.constants, self.max_seq_len = network, constants, max_seq_len
        self.layers = [node.layer for node in network.nodes if isinstance(node.layer, GPTAttention)]
        first = self.layers[0]
        self.size = first.tokens_per_block
        half = first.num_kv_heads * self.size * first.head_size
        self.pool = torch.zeros(blocks * len(self.layers) * 2 * half, dtype=first.dtype)
        self.free = torch.randperm(blocks, generator=torch.Generator().manual_seed(0)).tolist()
        self.held: dict[str, list[int]] = {}

    def call(self, given: Sequence[tuple[str, Sequence[int], int, int]], table: Tensor | None = None) -> Tensor:
        """Logits of each sequence's last token.

        Args:
            given: name, the tokens of this call, how many the cache holds already, and the prompt's length for a
                sequence that generates, 0 for one in its prompt; those in their prompts come first.
        """
        counts = [len(tokens) for _, tokens, _, _ in given]
        totals = [past + count for (_, _, past, _), count in zip(given, counts, strict=True)]
        prompts = [prompt or count for (_, _, _, prompt), count in zip(given, counts, strict=True)]
        lengths = torch.tensor(totals, dtype=torch.int32)
        past = [total - 1 if prompt else total for (_, _, _, prompt), total in zip(given, totals, strict=True)]
        offsets = self._offsets([name for name, *_ in given], totals)
        inputs = {
            "input_ids": torch.tensor([token for _, tokens, _, _ in given for token in tokens], dtype=torch.int32),
            "position_ids": torch.cat([torch.arange(p, p + c) for (_, _, p, _), c in zip(given, counts, strict=True)]),
            "last_token_ids": torch.tensor(counts).cumsum(0),
            "sequence_length": lengths,
            "host_request_types": torch.tensor([int(bool(prompt)) for *_, prompt in given]),
            "host_past_key_value_lengths": torch.tensor(past),
            "context_lengths": torch.tensor(prompts),
            "host_context_lengths": torch.tensor(prompts),
            "host_runtime_perf_knobs": torch.full((16,), -1, dtype=torch.int64),
            "host_context_progress": torch.zeros(1, dtype=torch.int64),
            "host_max_attention_window_sizes": torch.tensor([x.window or self.max_seq_len for x in self.layers]),
            "host_sink_token_length": torch.zeros(1),
            "cache_indirection": torch.zeros(len(given), 1, self.max_seq_len),
            "kv_cache_block_offsets": offsets,
            "host_kv_cache_block_offsets": offsets,
            "host_kv_cache_pool_pointers": torch.tensor([[self.pool.data_ptr(), 0]], dtype=torch.int64),
            "host_kv_cache_pool_mapping": self._mapping(),
            "prompt_embedding_table": table,
            "tasks": torch.cat([torch.full((count,), row) for row, count in enumerate(counts)]),
            "prompt_vocab_size": torch.tensor([0 if table is None else len(table) // len(given)]),
        }
        typed = {name: inputs[name].to(spec.dtype) for name, spec in self.network.inputs.items()}
        return run(self.network, typed, self.constants)["logits"]

    def _mapping(self) -> Tensor:
        """Pool and place of each layer, or its pool alone, as the network's version has it (contract, LLM 9)."""
        places = torch.tensor([[0, layer] for layer in range(len(self.layers))])
        return places if self.network.inputs["host_kv_cache_pool_mapping"].rank == 2 else places[:, 0]

    def _offsets(self, names: Sequence[str], totals: Sequence[int]) -> Tensor:
        """Blocks for every position of each sequence: [1, B, 2, blocks] of half-blocks of the whole pool."""
        for name, total in zip(names, totals, strict=True):
            held = self.held.setdefault(name, [])
            while len(held) * self.size < total:
                held.append(self.free.pop())
        width = max(len(self.held[name]) for name in names)
        offsets = torch.zeros(1, len(names), 2, width, dtype=torch.int32)
        for row, name in enumerate(names):
            for column, block in enumerate(self.held[name]):
                for kind in (0, 1):
                    offsets[0, row, kind, column] = block * len(self.layers) * 2 + kind
        return offsets


def packed_network(model, rows=0, **options):
    """A model with its network for the packed target; `rows` are those of the prompt table."""
    model.config._attn_implementation = "eager"
    builder = LlmBuilder.from_model(model).with_batch(4).with_max_seq_len(MAX_SEQ_LEN).with_max_input_len(16)
    builder = builder.with_prompt_table(rows)
    builder = builder.with_target("trtllm").with_trtllm(TrtllmConfig(**{"tokens_per_block": 4, **options}))
    engine = engine_of(builder)
    constants = Constants(engine.network, engine.part.tensors)
    return SimpleNamespace(model=model, network=engine.network, constants=constants)


@cache
def packed_text_model(name, dtype=torch.float32, **options):
    """A tiny text model with its network for the packed target, built once."""
    return packed_network(TEXT_MODELS[name]().to(dtype), **options)
