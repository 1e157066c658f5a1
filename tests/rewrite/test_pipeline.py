"""Whole models through every wall: Hugging Face, the captured program, the rewritten one and the network agree."""

from __future__ import annotations

import pytest
import torch
from loguru import logger
from torch.nn.functional import embedding

from ditto.dumps import dumping
from ditto.network import check
from ditto.program import evaluate, program_text
from ditto.reference import RELATIVE_ERROR, Constants, relative_error, run
from ditto.rewrite import rewrite
from tests.support.layers import emitted
from tests.support.models import TEXT_MODELS, TRANSFORMERS_5
from tests.support.programs import FunctionModule, captured, operators
from tests.support.stages import PROMPT_SHAPES, empty_caches, last_token_logits, prompt_inputs, staged

aten = torch.ops.aten


def check_walls(name, dtype):
    """Compare the captured program, the rewritten program and the network with Hugging Face."""
    told = staged(name, dtype)
    constants = Constants(told.network, told.part.tensors)
    for size, captured_result in zip(PROMPT_SHAPES, told.captured):
        given = prompt_inputs(*size)
        wanted = last_token_logits(told.model, given)
        (rewritten,) = evaluate(told.rewritten, given, told.parameter)
        network = run(told.network, {**given, **empty_caches(told.network, size[0])}, constants)["logits"]
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
    "replace complex numbers": 0,
    "compute numbers": 0,
    "recognise attention": 0,
    "recognise written attention": 0,
    "recognise causal convolutions": 0,
    "number recurrences": 0,
    "state masks": 2,
    "refuse writes": 0,
    "use given positions": 0,
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
    counts = dict(staged(name).counts)
    del counts["make functional"]  # older versions of transformers write masks in place
    assert counts.pop("clean") > 0
    assert counts == {**USUAL, **UNUSUAL.get(name, {})}


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_what_is_left_is_what_a_decoder_is(name):
    told = staged(name)
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
    nodes = [n for n in staged(name).rewritten.graph.nodes if n.target == torch.ops.ditto.attention.default]
    facts = [node.args[3:10] for node in nodes]
    softcap, scale = (3.0, 24**-0.5) if "gemma2" in name else (0.0, 0.25)
    wanted = [(None, None, scale, True, window, softcap, layer) for layer, window in enumerate(WINDOWS[name])]
    assert facts == wanted


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_tensorrt_agrees_with_every_shape_and_dtype(name):
    told = staged(name)
    emitted(told.network, told.part.tensors)


OF_POSITIONS = (
    "recognise written attention",
    "recognise causal convolutions",
    "number recurrences",
    "use given positions",
    "tabulate positions",
    "refuse other state",
)


def test_steps_run_in_order_and_positions_only_where_there_are_any():
    program = captured(lambda x: x * 1, {"x": torch.zeros(2)})
    counts = {name: report.applied for name, report in rewrite(program, {}).items()}
    assert list(counts) == [
        "make functional",
        "clean",
        *(step for step in USUAL if step not in OF_POSITIONS),
    ]
    assert counts.pop("clean") == 1
    assert not any(counts.values())
    program = captured(lambda x: x + 1, {"x": torch.zeros(2)})
    assert list(rewrite(program, {"sequence": 4}, "position_ids")) == ["make functional", "clean", *USUAL]


def test_refusals_are_logged_and_dumped(tmp_path):
    """A table whose second half is not its first is not that of a rotary embedding."""
    cos, sin = torch.randn(9, 8), torch.randn(9, 8)

    def rotated(self, x, ids):
        c, s = embedding(ids, self.cos).unsqueeze(1), embedding(ids, self.sin).unsqueeze(1)
        return x * c + torch.cat((-x[..., 4:], x[..., :4]), dim=-1) * s

    inputs = {"x": torch.randn(2, 3, 5, 8), "ids": torch.zeros(2, 5, dtype=torch.int64)}
    program = captured(FunctionModule(rotated, buffers={"cos": cos, "sin": sin}), inputs)
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
