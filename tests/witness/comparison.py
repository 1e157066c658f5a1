"""Definitions that Ditto emits, replayed by the witness, against Hugging Face in float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from ditto.builders import EngineBuilder, LlmBuilder
from ditto.builders.pipeline import describe, describe_all
from ditto.network import Network, resolve
from ditto.network.layers import Constant
from ditto.network.outside import with_weights_outside
from ditto.network.weight import TensorSource
from ditto.reference import RELATIVE_ERROR, relative_error
from tests.support.layers import emitted
from tests.support.witness import replay
from tests.support.witness.reading import DTYPES


def described(builder: EngineBuilder, capacity: int = 48) -> tuple[Network, TensorSource]:
    """The network of a builder, and who has its weights; `emitted(*described(...))` is the definition."""
    builder = builder.with_batch(2).with_target("tensorrt-rtx")
    if isinstance(builder, LlmBuilder):
        builder = builder.with_max_seq_len(capacity).with_max_input_len(capacity - 1)
    job = builder.job(builder.resolved_target())
    return describe(job), job.tensors


def definition_of(builder: EngineBuilder, capacity: int = 48) -> Any:
    """The definition of a builder, with what must outlive it."""
    return emitted(*described(builder, capacity))


def definition_with_weights_outside(builder: EngineBuilder, capacity: int = 48) -> tuple[Any, dict[str, Tensor]]:
    """The definition of a builder that takes every weight it can as an input, and the numbers of those."""
    return _with_weights_outside(*described(builder, capacity))


def definitions_apart(builder: LlmBuilder, capacity: int = 48) -> dict[str, tuple[Any, dict[str, Tensor]]]:
    """The definitions for prompts and for steps of one token, and the numbers of the weights that they take."""
    builder = builder.with_batch(2).with_target("tensorrt-rtx").with_weights("outside")
    job = builder.with_max_seq_len(capacity).with_max_input_len(capacity - 1).job(builder.resolved_target())
    return {name: _with_weights_outside(network, part.tensors) for name, (part, network) in describe_all(job).items()}


def _with_weights_outside(network: Network, source: TensorSource) -> tuple[Any, dict[str, Tensor]]:
    made, outside = with_weights_outside(network, least_bytes=1)
    constants = {node.outputs[0]: node.layer for node in network.nodes if isinstance(node.layer, Constant)}
    numbers = {name: resolve(constants[value].weight, source, network.literals) for name, value in outside.items()}
    return emitted(made, source), numbers


def eager(model: Any) -> Any:
    """`model`, with attention written out: PyTorch's own attention would drop soft-caps."""
    if hasattr(model, "set_attn_implementation"):
        model.set_attn_implementation("eager")
    for config in (model.config, model.config.get_text_config()):
        config._attn_implementation = "eager"
    return model


class Decoder:
    """A decoder's definition and its KV caches, which begin as noise: unwritten slots must not matter."""

    def __init__(self, kept: Any, table: Tensor | None = None, weights: Mapping[str, Tensor] | None = None) -> None:
        self._kept = kept
        self._extra = {**(weights or {}), **({} if table is None else {"prompt_embedding_table": table})}
        inputs = [kept.definition.get_input(index) for index in range(kept.definition.num_inputs)]
        noise = torch.Generator().manual_seed(7)
        self._caches = {
            handle.name: torch.randn(2, *tuple(handle.shape)[1:], generator=noise).to(DTYPES[handle.dtype])
            for handle in inputs
            if handle.name.startswith("past_")
        }
        self._lengths = torch.zeros(2, dtype=torch.int32)

    def step(self, rows: Sequence[Tensor]) -> Tensor:
        """Logits of each row's last token, float32 [2, vocabulary]; shorter rows are padded on the right."""
        given = torch.tensor([len(row) for row in rows], dtype=torch.int32)
        inputs = {
            "input_ids": torch.nn.utils.rnn.pad_sequence([row.int() for row in rows], batch_first=True),
            "position_ids": self._lengths[:, None] + torch.arange(int(given.max()), dtype=torch.int32),
            "last_token_ids": given - 1,
            "write_indices": self._lengths,
        }
        return self._advanced(replay(self._kept.definition, {**inputs, **self._caches, **self._extra}), given)

    def _advanced(self, outputs: dict[str, Tensor], given: Tensor | int) -> Tensor:
        """The logits; everything else goes into the caches."""
        logits = outputs.pop("logits")
        self._caches = {name.replace("present_", "past_"): cache for name, cache in outputs.items()}
        self._lengths = self._lengths + given
        return logits


class ApartDecoder(Decoder):
    """Two definitions that share KV caches: one for the prompts, one for every token after them."""

    def __init__(self, parts: Mapping[str, tuple[Any, dict[str, Tensor]]], table: Tensor | None = None) -> None:
        super().__init__(parts["llm"][0], table, parts["llm"][1])
        self._parts, self._table = parts, table

    @override
    def step(self, rows: Sequence[Tensor]) -> Tensor:
        if not self._lengths.any():
            return super().step(rows)
        kept, weights = self._parts["decode"]
        inputs = {
            "input_ids": torch.stack(list(rows)).int(),
            "position_ids": self._lengths[:, None],
            "write_indices": self._lengths,
            "cache_slots": torch.arange(int(self._lengths.max()) + 3, dtype=torch.int32),
            **({} if self._table is None else {"prompt_embedding_table": self._table}),
        }
        return self._advanced(replay(kept.definition, {**inputs, **self._caches, **weights}), 1)


def logits(model: Any, rows: Sequence[Tensor], table: Tensor | None = None) -> list[Tensor]:
    """Hugging Face's logits after all tokens of each row but one, and after all: twice [2, vocabulary]. Token ids from
    the vocabulary's size on are rows of `table`."""
    embedding = model.get_input_embeddings()
    found = []
    with torch.no_grad():
        for row in rows:
            vocab_size = embedding.weight.shape[0]
            embeds = embedding(row.clamp(max=vocab_size - 1))
            if table is not None:
                virtual = row >= vocab_size
                embeds[virtual] = table[row[virtual] - vocab_size].to(embeds.dtype)
            found.append(model(inputs_embeds=embeds[None], use_cache=False).logits[0, -2:].float())
    return list(torch.stack(found, dim=1))


def decoder_errors(
    kept: Any,
    rows: Sequence[Tensor],
    wanted: Sequence[Tensor],
    table: Tensor | None = None,
    weights: Mapping[str, Tensor] | None = None,
) -> list[float]:
    """Relative errors of prefill (all tokens but the last of each row) and of one step of decoding (the last)."""
    return step_errors(Decoder(kept, table, weights), rows, wanted)


def step_errors(decoder: Decoder, rows: Sequence[Tensor], wanted: Sequence[Tensor]) -> list[float]:
    """`decoder_errors` of a decoder that has not begun."""
    found = decoder.step([row[:-1] for row in rows]), decoder.step([row[-1:] for row in rows])
    return [relative_error(mine, truth) for mine, truth in zip(found, wanted, strict=True)]


def allowed(dtype: torch.dtype, own: float = 0.0) -> float:
    """The largest relative error in a dtype. `own` is Hugging Face's in that dtype: where rounding alone costs a tiny
    random model more than the table allows, 1.5 times as much is allowed."""
    return max(RELATIVE_ERROR[dtype], 1.5 * own)
