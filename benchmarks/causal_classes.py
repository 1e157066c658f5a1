"""Which causal classes of transformers build and equal Hugging Face: a tiny random model of each.

    python -m benchmarks.causal_classes                        # all of them, one line each
    python -m benchmarks.causal_classes llama gpt_oss          # some
    python -m benchmarks.causal_classes --part 2/4             # every fourth, from the second on
    python -m benchmarks.causal_classes --form separate        # prefill and decode as separate engines
    python -m benchmarks.causal_classes --form packed          # TensorRT-LLM's engine, by a simulation of its runtime

A model is described, not compiled, and its network is run in PyTorch. It is `verified` if the logits of two rows of
different lengths equal Hugging Face's after the prompt and after each decoded token, and so do the greedy tokens.
`python -m benchmarks.supported --causal` writes what is found to docs/supported.md.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, Literal, Protocol

import torch
from attrs import frozen
from torch import Tensor
from typing_extensions import override

from benchmarks.tiny_models import causal_types, tiny_model
from ditto.builders.describe import describe
from ditto.builders.in_memory import ModuleTensors
from ditto.builders.llm import LlmBuilder
from ditto.engine.config import LlmConfig
from ditto.errors import DittoError
from ditto.network import Network
from ditto.network.dims import evaluate
from ditto.reference import Constants, run
from ditto.targets.trtllm.runtime import PackedRuntime
from ditto.targets.trtllm.step import Part

LENGTHS, STEPS = (19, 11), 5
_CAPACITY = 32
# Largest difference of logits, relative to the largest logit. Hugging Face's own rounding is about 1e-6.
TOLERANCE = 1e-5

Form = Literal["combined", "separate", "packed"]
Verdict = Literal["verified", "refused", "WRONG", "exception", "no model"]


@frozen
class Outcome:
    """Result of one class: verdict, largest relative difference of logits, and the reason for other verdicts."""

    verdict: Verdict
    difference: float = 0.0
    reason: str = ""

    @override
    def __str__(self) -> str:
        return f"{self.verdict:9s} {self.difference:8.1e}  {self.reason}".rstrip()


def check_class(model_type: str, form: Form = "combined", seed: int = 0) -> Outcome:
    """The outcome of a tiny model of a type."""
    try:
        model = tiny_model(model_type, seed)
        prompts = prompts_for(model, seed)
        wanted = answers(model, prompts)
    except Exception as error:
        return Outcome("no model", reason=_text(error))
    return check_model(model, prompts, wanted, form)


def check_model(model: Any, prompts: list[list[int]], wanted: list[Tensor], form: Form = "combined") -> Outcome:
    """The outcome of a model in memory, given its prompts and Hugging Face's `answers`."""
    try:
        engines = PackedEngine.of(model) if form == "packed" else PaddedEngines.of(model, form)
        difference, tokens = _differences(engines, prompts, wanted)
    except DittoError as error:
        return Outcome("refused", reason=_text(error))
    except Exception as error:
        return Outcome("exception", reason=f"{_text(error)} at {_place(error)}")
    if difference <= TOLERANCE and not tokens:
        return Outcome("verified", difference)
    return Outcome("WRONG", difference, tokens)


def prompts_for(model: Any, seed: int = 0) -> list[list[int]]:
    """Prompts of different lengths, without special tokens."""
    config = model.config.get_text_config()
    rows = model.get_input_embeddings().weight.shape[0]
    most = min(config.vocab_size, rows) - 16
    generator = torch.Generator().manual_seed(seed + 1)
    return [torch.randint(5, most, (length,), generator=generator).tolist() for length in LENGTHS]


def answers(model: Any, prompts: list[list[int]]) -> list[Tensor]:
    """Hugging Face's logits after each prompt and each greedy token: [steps, vocabulary] for each prompt.

    Each is a forward of the whole sequence so far, without a cache.
    """
    found: list[Tensor] = []
    for prompt in prompts:
        ids, rows = list(prompt), []
        for _ in range(STEPS):
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits
            if logits.shape[:2] != (1, len(ids)):
                raise ValueError(f"logits are {list(logits.shape)} for {len(ids)} tokens")
            rows.append(logits[0, -1].float())
            ids.append(int(rows[-1].argmax()))
        found.append(torch.stack(rows))
    return found


class Engines(Protocol):
    """Engines of a model, run in PyTorch."""

    def logits(self, prompts: list[list[int]], following: Tensor) -> Iterator[Tensor]:
        """Logits [rows, vocabulary] after the prompts, and after each column of `following` [rows, steps]."""
        ...


@frozen
class PackedEngine:
    """TensorRT-LLM's runtime, simulated."""

    runtime: PackedRuntime
    config: dict[str, Any]

    @staticmethod
    def of(model: Any) -> PackedEngine:
        """Describe a model's network.

        Raises:
            DittoError: the model is refused.
        """
        builder = _builder(model).with_target("trtllm")
        target = builder.resolved_target()
        (found,) = describe(builder.part(target), target, builder.build_settings)
        constants = Constants(found.network, ModuleTensors(model))
        described = target.config(found.part, found.network)
        assert isinstance(described, LlmConfig)
        config, (profile,) = described.to_json(), found.spec.profiles
        return PackedEngine(PackedRuntime(found.network, constants, config, profile, len(LENGTHS)), config)

    def logits(self, prompts: list[list[int]], following: Tensor) -> Iterator[Tensor]:
        """As the protocol says."""
        lengths = [len(prompt) for prompt in prompts]
        yield self.runtime.step([Part(row, tuple(ids), 0, len(ids), None) for row, ids in enumerate(prompts)])
        for step, column in enumerate(following.unbind(1)):
            yield self.runtime.step(
                [
                    Part(row, (token,), length + step, length, None)
                    for row, (token, length) in enumerate(zip(column.tolist(), lengths, strict=True))
                ]
            )


def _builder(model: Any) -> LlmBuilder:
    builder = LlmBuilder.from_model(model).with_batch(len(LENGTHS))
    return builder.with_max_input_len(max(LENGTHS)).with_max_seq_len(_CAPACITY)


@frozen
class PaddedEngines:
    """Networks of prefill and decode, and the values of their constants."""

    prefill: Network
    decode: Network
    constants: Callable[[Network], Constants]

    @staticmethod
    def of(model: Any, form: Literal["combined", "separate"]) -> PaddedEngines:
        """Describe a model's networks.

        Raises:
            DittoError: the model is refused.
        """
        builder = _builder(model).with_target("tensorrt-rtx").with_engines(form)
        target = builder.resolved_target()
        prefill, *others = describe(builder.part(target), target, builder.build_settings)
        networks = prefill.network, (others[0] if others else prefill).network
        return PaddedEngines(*networks, lambda network: Constants(network, ModuleTensors(model)))

    def logits(self, prompts: list[list[int]], following: Tensor) -> Iterator[Tensor]:
        """As the protocol says."""
        rows, longest = len(prompts), max(map(len, prompts))
        lengths = torch.tensor([len(prompt) for prompt in prompts], dtype=torch.int32)
        given = {
            "input_ids": torch.tensor([[*ids, *[0] * (longest - len(ids))] for ids in prompts], dtype=torch.int32),
            "position_ids": torch.arange(longest, dtype=torch.int32).repeat(rows, 1),
            "last_token_ids": lengths - 1,
            "write_indices": torch.zeros_like(lengths),
        }
        states = {  # garbage, not zeros: nothing may depend on what a cache held before
            name: torch.randn([evaluate(dim, {"batch": rows}) for dim in spec.shape]).to(spec.dtype)
            for name, spec in self.prefill.inputs.items()
            if name in self.prefill.shared.values()
        }
        network, constants = self.prefill, self.constants(self.prefill)
        step = (self.decode, constants if self.decode is self.prefill else self.constants(self.decode))
        for column in [*following.unbind(1), None]:
            inputs = {name: given[name] for name in network.inputs if name in given}
            outputs = run(network, {**inputs, **states}, constants)
            states = {past: outputs[present] for present, past in network.shared.items()}
            yield outputs["logits"]
            if column is None:
                return
            given = {
                "input_ids": column[:, None].int(),
                "position_ids": lengths[:, None],
                "last_token_ids": torch.zeros_like(lengths),
                "write_indices": lengths,
                "cache_slots": torch.arange(int(lengths.max()) + 1, dtype=torch.int32),
            }
            lengths = lengths + 1
            network, constants = step


def _differences(engines: Engines, prompts: list[list[int]], wanted: list[Tensor]) -> tuple[float, str]:
    """The largest relative difference of logits, and the first greedy token that differs."""
    following = torch.stack([rows.argmax(-1)[:-1] for rows in wanted])
    largest, first = 0.0, ""
    for step, found in enumerate(engines.logits(prompts, following)):
        for row, (logits, each) in enumerate(zip(found, wanted, strict=True)):
            logits = logits[: each.shape[-1]]
            difference = float((logits - each[step]).abs().max() / each[step].abs().max())
            largest = max(largest, difference) if difference == difference else float("inf")
            if not first and int(logits.argmax()) != int(each[step].argmax()):
                first = f"row {row} token {step}: {int(logits.argmax())}, Hugging Face {int(each[step].argmax())}"
    return largest, first


def _text(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    named = isinstance(error, DittoError)
    return " ".join(lines[:2])[:240] if named else f"{type(error).__name__}: {lines[0][:200]}"


def _place(error: Exception) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/ditto/" in frame.filename]
    return f"{frames[-1].filename.rsplit('/ditto/', 1)[-1]}:{frames[-1].lineno}" if frames else "?"


def main() -> int:
    """Print the outcome of each class; the exit code is 1 if one is wrong or an exception."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("types", nargs="*", help="model types; all if omitted")
    parser.add_argument("--part", default="1/1", help="n/of: every of-th type, from the n-th on")
    parser.add_argument("--form", choices=("combined", "separate", "packed"), default="combined")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    first, step = map(int, given.part.split("/"))
    counts: dict[str, int] = {}
    for model_type in given.types or causal_types()[first - 1 :: step]:
        start = time.monotonic()
        outcome = check_class(model_type, given.form, given.seed)
        counts[outcome.verdict] = counts.get(outcome.verdict, 0) + 1
        print(f"{model_type:26s} {time.monotonic() - start:5.1f} s  {outcome}", flush=True)
    print(", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items())), file=sys.stderr)
    return 1 if counts.get("WRONG") or counts.get("exception") else 0


if __name__ == "__main__":
    raise SystemExit(main())
