"""Definitions that Ditto emits, replayed by the witness, against Hugging Face in float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ditto.builders import EngineBuilder, LlmBuilder
from ditto.builders.pipeline import describe
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
    network, source = described(builder, capacity)
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
        outputs = replay(self._kept.definition, {**inputs, **self._caches, **self._extra})
        logits = outputs.pop("logits")
        self._caches = {name.replace("present_", "past_"): cache for name, cache in outputs.items()}
        self._lengths = self._lengths + given
        return logits


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
    decoder = Decoder(kept, table, weights)
    found = decoder.step([row[:-1] for row in rows]), decoder.step([row[-1:] for row in rows])
    return [relative_error(mine, truth) for mine, truth in zip(found, wanted, strict=True)]


def allowed(dtype: torch.dtype, own: float = 0.0) -> float:
    """The largest relative error in a dtype. `own` is Hugging Face's in that dtype: where rounding alone costs a tiny
    random model more than the table allows, 1.5 times as much is allowed."""
    return max(RELATIVE_ERROR[dtype], 1.5 * own)
