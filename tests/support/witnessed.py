"""Definitions that Ditto emits, replayed by the witness, against Hugging Face in float32."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from attrs import frozen
from torch import Tensor
from typing_extensions import override

from ditto.builders import EngineBuilder, LlmBuilder
from ditto.network import Network, Spec, TensorSource, resolve
from ditto.reference import RELATIVE_ERROR, relative_error
from tests.support.describing import engine_of, engines_of
from tests.support.layers import emitted
from tests.support.parts import by_calls, in_shared_blocks, weights_by_value
from tests.support.witness import replay
from tests.support.witness.reading import DTYPES


def described(builder: EngineBuilder, capacity: int = 48) -> tuple[Network, TensorSource]:
    """The network of a builder, and who has its weights; `emitted(*described(...))` is the definition."""
    builder = builder.with_batch(2).with_target("tensorrt-rtx")
    if isinstance(builder, LlmBuilder):
        builder = builder.with_max_seq_len(capacity).with_max_input_len(capacity - 1)
    engine = engine_of(builder)
    return engine.network, engine.part.tensors


def definition_of(builder: EngineBuilder, capacity: int = 48) -> Any:
    """The definition of a builder, with what must outlive it."""
    return emitted(*described(builder, capacity))


@frozen
class DecoderFunction:
    """A language model as a function.

    Args:
        run: from the inputs to the outputs.
        caches: specs of the KV caches among the inputs, by name.
    """

    run: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    caches: Mapping[str, Spec]


def replayed(kept: Any) -> DecoderFunction:
    """A definition."""
    inputs = [kept.definition.get_input(index) for index in range(kept.definition.num_inputs)]
    caches = {x.name: Spec(tuple(x.shape), DTYPES[x.dtype]) for x in inputs if x.name.startswith("past_")}
    return DecoderFunction(lambda given: replay(kept.definition, given), caches)


def replayed_in_parts(network: Network, source: TensorSource) -> DecoderFunction:
    """The definitions of a network's parts, by their calls; they take every weight that they can as an input."""
    parts, stored = in_shared_blocks(network, least_bytes=1), weights_by_value(network)
    definitions = [emitted(part, source) for part in parts.networks]
    weights = {name: resolve(stored[value], source, network.literals) for name, value in parts.external.items()}

    def run(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        made = by_calls(parts, {**given, **weights}, lambda part, taken: replay(definitions[part].definition, taken))
        return {name: made[name] for name in network.outputs}

    return DecoderFunction(run, {name: spec for name, spec in network.inputs.items() if name.startswith("past_")})


def described_disaggregated(builder: LlmBuilder, capacity: int = 48) -> dict[str, tuple[Network, TensorSource]]:
    """The networks for prompts and for steps of one token, and who has their weights."""
    builder = builder.with_batch(2).with_target("tensorrt-rtx").with_optimize("latency").with_tuning("9.0")
    described = engines_of(builder.with_max_seq_len(capacity).with_max_input_len(capacity - 1))
    return {name: (engine.network, engine.part.tensors) for name, engine in described.items()}


def eager(model: Any) -> Any:
    """`model`, with attention written out: PyTorch's own attention would drop soft-caps."""
    if hasattr(model, "set_attn_implementation"):
        model.set_attn_implementation("eager")
    for config in (model.config, model.config.get_text_config()):
        config._attn_implementation = "eager"
    return model


class Decoder:
    """A decoder and its KV caches, which begin as noise: unwritten slots must not matter."""

    def __init__(self, computed: DecoderFunction, table: Tensor | None = None) -> None:
        self._computed = computed
        self._extra = {} if table is None else {"prompt_embedding_table": table}
        noise = torch.Generator().manual_seed(7)
        self._caches = {
            name: torch.randn([2, *map(int, spec.shape[1:])], generator=noise).to(spec.dtype)  # type: ignore[arg-type]
            for name, spec in computed.caches.items()
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
        return self._advanced(self._computed.run({**inputs, **self._caches, **self._extra}), given)

    def _advanced(self, outputs: dict[str, Tensor], given: Tensor | int) -> Tensor:
        """The logits; everything else goes into the caches."""
        logits = outputs.pop("logits")
        self._caches = {name.replace("present_", "past_"): cache for name, cache in outputs.items()}
        self._lengths = self._lengths + given
        return logits


class DisaggregatedDecoder(Decoder):
    """Two networks that share KV caches: one for the prompts, one for every token after them."""

    def __init__(self, prompts: DecoderFunction, steps: DecoderFunction, table: Tensor | None = None) -> None:
        super().__init__(prompts, table)
        self._steps = steps

    @override
    def step(self, rows: Sequence[Tensor]) -> Tensor:
        if not self._lengths.any():
            return super().step(rows)
        inputs = {
            "input_ids": torch.stack(list(rows)).int(),
            "position_ids": self._lengths[:, None],
            "write_indices": self._lengths,
            "cache_slots": torch.arange(int(self._lengths.max()) + 3, dtype=torch.int32),
        }
        return self._advanced(self._steps.run({**inputs, **self._caches, **self._extra}), 1)


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
    kept: Any, rows: Sequence[Tensor], wanted: Sequence[Tensor], table: Tensor | None = None
) -> list[float]:
    """Relative errors of prefill (all tokens but the last of each row) and of one step of decoding (the last)."""
    return step_errors(Decoder(replayed(kept), table), rows, wanted)


def step_errors(decoder: Decoder, rows: Sequence[Tensor], wanted: Sequence[Tensor]) -> list[float]:
    """`decoder_errors` of a decoder that has not begun."""
    found = decoder.step([row[:-1] for row in rows]), decoder.step([row[-1:] for row in rows])
    return [relative_error(mine, truth) for mine, truth in zip(found, wanted, strict=True)]


def allowed_error(dtype: torch.dtype, own: float = 0.0) -> float:
    """The largest relative error in a dtype. `own` is Hugging Face's in that dtype: where rounding alone costs a tiny
    random model more than the table allows, 1.5 times as much is allowed."""
    return max(RELATIVE_ERROR[dtype], 1.5 * own)
