"""Whole models through every wall: Hugging Face, the captured program, the rewritten one and the network agree."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace

import pytest
import torch
from loguru import logger
from torch.nn.functional import embedding

from ditto.builders.llm import LlmBuilder
from ditto.capture import export
from ditto.dumps import dumping
from ditto.network import check
from ditto.network.dims import evaluate as size_of
from ditto.passes import run_passes
from ditto.program import evaluate, program_text
from ditto.reference import RELATIVE_ERROR, Constants, relative_error, run
from ditto.rewrite import rewrite
from ditto.targets.registry import target
from tests.support.layers import emitted
from tests.support.models import TEXT_MODELS, TRANSFORMERS_5
from tests.test_program import Says, captured, operators

aten = torch.ops.aten

SEQUENCE = 24
SIZES = ((3, 11), (1, 1), (4, 16))  # batch and length


def story(name: str, dtype: torch.dtype = torch.float32) -> SimpleNamespace:
    """The story of a model, told once."""
    return _story(name, dtype)


@cache
def _story(name, dtype):
    """A model on its way to a network. What it gives as it was captured is kept: the program is rewritten in place."""
    model = TEXT_MODELS[name]().to(dtype)
    model.config._attn_implementation = "eager"  # honours soft-caps and windows in every version
    builder = LlmBuilder.from_model(model).with_batch(4).with_max_seq_len(SEQUENCE).with_max_input_len(16)
    job = builder.job(target("tensorrt-rtx"))
    parameter = dict(job.wrapper.named_parameters(remove_duplicate=False)).__getitem__
    program = export(job.wrapper, job.inputs, job.output_names, job.prefix, job.dtype)
    captured = [evaluate(program, inputs(*size), parameter)[0] for size in SIZES]
    counts = {name: report.applied for name, report in rewrite(program, job.sizes, job.positions).items()}
    network = run_passes(job.lower(program), job.passes)
    return SimpleNamespace(
        model=model, job=job, parameter=parameter, captured=captured, rewritten=program, counts=counts, network=network
    )


def inputs(batch, length, seed=0):
    """Token ids, positions, and the index of each row's last token; rows differ in length."""
    ids = torch.randint(3, 126, (batch, length), generator=torch.Generator().manual_seed(seed), dtype=torch.int32)
    positions = torch.arange(length, dtype=torch.int32).repeat(batch, 1)
    last = torch.tensor([length - 1 - row % length for row in range(batch)], dtype=torch.int32)
    return {"input_ids": ids, "position_ids": positions, "last_token_ids": last}


def fresh_cache(network, batch):
    """Inputs of a decoder that has seen nothing yet."""
    caches = {
        name: torch.zeros([size_of(dim, {"batch": batch}) for dim in spec.shape], dtype=spec.dtype)
        for name, spec in network.inputs.items()
        if name.startswith("past_")
    }
    return {**caches, "write_indices": torch.zeros(batch, dtype=torch.int32)}


def hugging_face(model, given):
    """The logits of each row's last token, from the model as its users call it."""
    with torch.no_grad():
        logits = model(input_ids=given["input_ids"].long(), position_ids=given["position_ids"].long()).logits
    return logits[torch.arange(len(logits)), given["last_token_ids"].long()].float()


def check_walls(name, dtype):
    """Compare the captured program, the rewritten program and the network with Hugging Face."""
    told = story(name, dtype)
    constants = Constants(told.network, told.job.tensors)
    for size, captured_result in zip(SIZES, told.captured):
        given = inputs(*size)
        wanted = hugging_face(told.model, given)
        (rewritten,) = evaluate(told.rewritten, given, told.parameter)
        network = run(told.network, {**given, **fresh_cache(told.network, size[0])}, constants)["logits"]
        for wall, found in {"captured": captured_result, "rewritten": rewritten, "network": network}.items():
            assert found.dtype == torch.float32 and found.shape == wanted.shape
            assert relative_error(found, wanted) < RELATIVE_ERROR[dtype], (wall, size)


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_every_wall_gives_hugging_faces_logits(name):
    check_walls(name, torch.float32)


@pytest.mark.parametrize("name", ["llama", "gemma2 with soft-caps and windows"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_wall_rounds_as_hugging_face_does(name, dtype):
    check_walls(name, dtype)


# How often each rewrite applies to two layers; `clean` depends on the version of transformers.
USUAL = {
    "recognise attention": 0,
    "state masks": 2,
    "refuse writes": 0,
    "tabulate positions": 2,
    "refuse other state": 0,
    "rope of halves": 4,
    "RMS norm, rounded first": 5,
    "RMS norm of 1 + weight": 0,
    "RMS norm, multiplied first": 0,
    "choose last tokens early": 11,
    "fuse projections": 10,
}
FUSED_BY_THE_MODEL = {"fuse projections": 0, "choose last tokens early": 6}
UNUSUAL = {
    "gemma2 with soft-caps and windows": {
        "state masks": 2 if TRANSFORMERS_5 else 0,  # the old one makes no masks: `state_windows`
        "RMS norm, rounded first": 0,
        "RMS norm of 1 + weight": 9,
        "choose last tokens early": 16,
    },
    "phi3": FUSED_BY_THE_MODEL,
    "phi3 with a window": FUSED_BY_THE_MODEL,
}


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_every_rewrite_applies_as_often_as_the_model_has_its_form(name):
    counts = dict(story(name).counts)
    assert counts.pop("clean") > 0
    assert counts == {**USUAL, **UNUSUAL.get(name, {})}


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_what_is_left_is_what_a_decoder_is(name):
    told = story(name)
    left = operators(told.rewritten)
    count = {op: left.count(getattr(torch.ops.ditto, op).default) for op in ("attention", "rope", "last_tokens")}
    assert count["attention"] == 2 and count["rope"] == 4 and count["last_tokens"] in (2, 3)
    assert not {aten.cos.default, aten.sin.default, aten.pow.Tensor_Scalar} & set(left) or name == "qwen3"
    check(told.network)


WINDOWS = {
    "mistral with a window": [5, 5],
    "phi3 with a window": [5, 5],
    "gemma2 with soft-caps and windows": [5, 0],
    "llama": [0, 0],
}


@pytest.mark.parametrize("name", WINDOWS)
def test_windows_and_softcaps_are_stated(name):
    nodes = [n for n in story(name).rewritten.graph.nodes if n.target == torch.ops.ditto.attention.default]
    facts = [node.args[3:10] for node in nodes]
    softcap, scale = (3.0, 24**-0.5) if "gemma2" in name else (0.0, 0.25)
    wanted = [(None, None, scale, True, window, softcap, layer) for layer, window in enumerate(WINDOWS[name])]
    assert facts == wanted


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_tensorrt_agrees_with_every_shape_and_dtype(name):
    told = story(name)
    emitted(told.network, told.job.tensors)


def test_steps_run_in_order_and_positions_only_where_there_are_any():
    program = captured(lambda x: x * 1, {"x": torch.zeros(2)})
    counts = {name: report.applied for name, report in rewrite(program, {}).items()}
    assert list(counts) == [
        "clean",
        *(step for step in USUAL if step not in ("tabulate positions", "refuse other state")),
    ]
    assert counts.pop("clean") == 1
    assert not any(counts.values())
    program = captured(lambda x: x + 1, {"x": torch.zeros(2)})
    assert list(rewrite(program, {"sequence": 4}, "position_ids")) == ["clean", *USUAL]


def test_refusals_are_logged_and_dumped(tmp_path):
    """A table whose second half is not its first is not that of a rotary embedding."""
    cos, sin = torch.randn(9, 8), torch.randn(9, 8)

    def rotated(self, x, ids):
        c, s = embedding(ids, self.cos).unsqueeze(1), embedding(ids, self.sin).unsqueeze(1)
        return x * c + torch.cat((-x[..., 4:], x[..., :4]), dim=-1) * s

    inputs = {"x": torch.randn(2, 3, 5, 8), "ids": torch.zeros(2, 5, dtype=torch.int64)}
    program = captured(Says(rotated, buffers={"cos": cos, "sin": sin}), inputs)
    lines = []
    handler = logger.add(lambda line: lines.append(line), level="DEBUG", format="{message}")
    logger.enable("ditto")
    try:
        with dumping(tmp_path / "dump"):
            reports = rewrite(program, {})
    finally:
        logger.disable("ditto")
        logger.remove(handler)
    (refusal,) = reports["rope of halves"].refused
    assert refusal.reason == "the cos table does not repeat its first half"
    line = f"refused 1 times, first at {refusal.place}: {refusal.reason}"
    assert f"rewrite rope of halves: {line}\n" in lines
    (dumped,) = (tmp_path / "dump").glob("*rope of halves.txt")
    assert dumped.read_text() == program_text(program) + f"# {line}\n"
