"""Text models as packed networks: prompts, chunks and generation in one batch give Hugging Face's logits."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace

import pytest
import torch

from ditto.builders.llm import LlmBuilder
from ditto.builders.pipeline import describe
from ditto.configs import TrtllmConfig
from ditto.reference import RELATIVE_ERROR, Constants, relative_error
from ditto.targets.trtllm.plugins import GPTAttention
from tests.support.models import TEXT_MODELS
from tests.support.packed import PackedCalls

SEQUENCE = 24
LONG, SHORT, OTHER = ([3 + (7 * i + seed) % 120 for i in range(n)] for seed, n in ((0, 13), (5, 4), (11, 9)))


@cache
def built(name, dtype=torch.float32, **options):
    """A model and its packed network."""
    return packed(TEXT_MODELS[name]().to(dtype), **options)


def packed(model, **options):
    model.config._attn_implementation = "eager"
    builder = LlmBuilder.from_model(model).with_batch(4).with_max_seq_len(SEQUENCE).with_max_input_len(16)
    builder = builder.with_target("trtllm").with_trtllm(TrtllmConfig(**{"tokens_per_block": 4, **options}))
    job = builder.job(builder.resolved_target())
    network = describe(job)
    return SimpleNamespace(model=model, job=job, network=network, constants=Constants(network, job.tensors))


def calls(told):
    return PackedCalls(told.network, told.constants, SEQUENCE)


def wanted(told, *rows):
    with torch.no_grad():
        return torch.cat([told.model(input_ids=torch.tensor([row])).logits[:, -1].float() for row in rows])


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_prompts_and_generation_in_one_batch_give_hugging_faces_logits(name):
    told = built(name)
    made = calls(told)
    found = made.call([("long", LONG, 0, 0), ("short", SHORT, 0, 0)])
    assert relative_error(found, wanted(told, LONG, SHORT)) < RELATIVE_ERROR[torch.float32]
    steps = {"long": [*LONG], "short": [*SHORT]}
    for step in range(8):
        for row in steps.values():
            row.append(20 + step)
        given = [(name, row[-1:], len(row) - 1, {"long": 13, "short": 4}[name]) for name, row in steps.items()]
        joining = [("other", OTHER, 0, 0)] if step == 3 else []
        found = made.call([*joining, *given])
        rows = [OTHER, *steps.values()] if joining else [*steps.values()]
        assert relative_error(found, wanted(told, *rows)) < RELATIVE_ERROR[torch.float32], step


def attentions(told):
    return [node.layer for node in told.network.nodes if isinstance(node.layer, GPTAttention)]
