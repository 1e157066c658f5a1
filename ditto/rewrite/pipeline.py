"""The rewrites in order, and a report of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Union

from loguru import logger

from ditto.dumps import dump
from ditto.ops.spans import SpanRule
from ditto.program import Program, program_text
from ditto.progress import stage
from ditto.refusals import refusal_lines
from ditto.rewrite.attention import recognise_sdpa
from ditto.rewrite.causal_conv import number_recurrences, recognise_causal_convs
from ditto.rewrite.clean import clean, refuse_writes
from ditto.rewrite.complex_numbers import replace_complex
from ditto.rewrite.functional import make_functional
from ditto.rewrite.last_tokens import choose_last_tokens_early
from ditto.rewrite.masks import classify_masks
from ditto.rewrite.norm import GEMMA_NORM, LLAMA_NORM, OLMO_NORM
from ditto.rewrite.numbers import compute_numbers
from ditto.rewrite.positions import use_given_positions
from ditto.rewrite.projections import fuse_projections
from ditto.rewrite.rope import ROPE_OF_HALVES
from ditto.rewrite.rule import RewriteReport
from ditto.rewrite.tables import tabulate
from ditto.rewrite.tokens import refuse_other_layers, refuse_other_state
from ditto.rewrite.written_attention import recognise_written_attention

Step = Callable[[Program], Union[int, RewriteReport]]


def rewrite(
    program: Program,
    sizes: Mapping[str, int],
    positions: str | None = None,
    joins: bool = True,
    attentions: int | None = None,
    spans: SpanRule | None = None,
) -> dict[str, RewriteReport]:
    """Simplify a program in place, without changing its results; return a report of each step.

    Args:
        sizes: maximum sizes of the named dimensions; `sequence` is the longest sequence.
        positions: name of the input with token positions, None for a vision tower.
        joins: whether to fuse linear layers that read the same tensor.
        attentions: number of decoder layers with attention, None if it is not known.
        spans: what the input of span ids means, None without one.
    Raises:
        UnsupportedFeature: the model has a feature that engines do not support.
    """
    steps: dict[str, Step] = {
        "make functional": make_functional,
        "clean": clean,
        "replace complex numbers": replace_complex,
        "compute numbers": compute_numbers,
        "recognise attention": recognise_sdpa,
    }
    if positions is not None:
        steps["recognise written attention"] = lambda program: recognise_written_attention(program, sizes)
        steps["recognise causal convolutions"] = recognise_causal_convs
        steps["number recurrences"] = number_recurrences
    steps["state masks"] = lambda program: classify_masks(program, sizes, positions is not None, spans)
    steps["refuse writes"] = refuse_writes
    if positions is not None:
        steps["use given positions"] = lambda program: use_given_positions(program, positions)
        steps["tabulate positions"] = lambda program: tabulate(program, positions, sizes["sequence"])
        steps["refuse other state"] = refuse_other_state
    if attentions is not None:
        steps["refuse other layers"] = lambda program: refuse_other_layers(program, attentions)
    for rule in (ROPE_OF_HALVES, LLAMA_NORM, GEMMA_NORM, OLMO_NORM):
        steps[rule.name] = rule
    steps["choose last tokens early"] = choose_last_tokens_early
    if joins:
        steps["fuse projections"] = fuse_projections
    reports: dict[str, RewriteReport] = {}
    with stage("rewrite"):
        for name, step in steps.items():
            result = step(program)
            reports[name] = report = result if isinstance(result, RewriteReport) else RewriteReport(result)
            lines = refusal_lines(report.refused)
            for line in (f"applied {report.applied} times", *lines):
                logger.debug("rewrite {}: {}", name, line)
            if report.applied or lines:
                dump(name, partial(_dumped, program, lines))
    return reports


def _dumped(program: Program, refusals: list[str]) -> str:
    """Text form of a program after a rewrite, with the places where it did not apply."""
    return "".join([program_text(program), *(f"# {line}\n" for line in refusals)])
