"""Tiny text models at each stage of a build: captured, rewritten, described as a network."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace

import torch

from ditto.builders.llm import LlmBuilder
from ditto.capture import export
from ditto.network.dims import evaluate as size_of
from ditto.passes import run_passes
from ditto.passes.spec import passes_of
from ditto.program import evaluate
from ditto.rewrite import rewrite
from ditto.targets.registry import target
from tests.support.models import TEXT_MODELS

MAX_SEQ_LEN = 24
PROMPT_SHAPES = ((3, 11), (1, 1), (4, 16))  # batch and length


def staged(name: str, dtype: torch.dtype = torch.float32) -> SimpleNamespace:
    """A text model at each stage of its build, computed once."""
    return _staged(name, dtype)


@cache
def _staged(name, dtype):
    # The captured program's results are kept: it is rewritten in place.
    model = TEXT_MODELS[name]().to(dtype)
    model.config._attn_implementation = "eager"  # honours soft-caps and windows in every version
    builder = LlmBuilder.from_model(model).with_batch(4).with_max_seq_len(MAX_SEQ_LEN).with_max_input_len(16)
    chosen = target("tensorrt-rtx")
    part = builder.part(chosen)
    parameter = dict(part.wrapper.named_parameters(remove_duplicate=False)).__getitem__
    program = export(part.wrapper, part.inputs, part.output_names, part.prefix, part.dtype)
    captured = [evaluate(program, prompt_inputs(*size), parameter)[0] for size in PROMPT_SHAPES]
    counts = {name: report.applied for name, report in rewrite(program, part.sizes, part.positions).items()}
    (spec,) = chosen.specs(part, builder.build_settings)
    network = run_passes(chosen.lower(part, program, spec), passes_of(spec.passes))
    return SimpleNamespace(
        model=model,
        part=part,
        parameter=parameter,
        captured=captured,
        rewritten=program,
        counts=counts,
        network=network,
    )


def prompt_inputs(batch, length, seed=0):
    """Token ids, positions, and the index of each row's last token; rows differ in length."""
    ids = torch.randint(3, 126, (batch, length), generator=torch.Generator().manual_seed(seed), dtype=torch.int32)
    positions = torch.arange(length, dtype=torch.int32).repeat(batch, 1)
    last = torch.tensor([length - 1 - row % length for row in range(batch)], dtype=torch.int32)
    return {"input_ids": ids, "position_ids": positions, "last_token_ids": last}


def empty_caches(network, batch):
    """Inputs of a decoder that has seen nothing yet."""
    caches = {
        name: torch.zeros([size_of(dim, {"batch": batch}) for dim in spec.shape], dtype=spec.dtype)
        for name, spec in network.inputs.items()
        if name.startswith("past_")
    }
    return {**caches, "write_indices": torch.zeros(batch, dtype=torch.int32)}


def last_token_logits(model, given):
    """The logits of each row's last token, from the model as its users call it."""
    with torch.no_grad():
        logits = model(input_ids=given["input_ids"].long(), position_ids=given["position_ids"].long()).logits
    return logits[torch.arange(len(logits)), given["last_token_ids"].long()].float()
