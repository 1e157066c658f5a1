"""Profiles have ranges for anything, and static shapes for what is typical where engines are specialised."""

from __future__ import annotations

import pytest
from attrs import evolve

from ditto.configs import Limits
from ditto.engine import Phase
from ditto.targets import target
from tests.support.describing import language_part
from tests.support.optimizing import LATENCY, PORTABLE

LIMITS = Limits(
    max_batch_size=4, max_input_len=32, max_seq_len=64, max_num_tokens=128, max_prompt_embedding_table_size=16
)
RTX = target("tensorrt-rtx")


def specs(limits, settings=PORTABLE):
    return RTX.specs(language_part(limits), settings)


def test_prefill_and_decode_have_a_profile_each():
    (spec,) = specs(LIMITS)
    prefill, decode = spec.profiles
    assert (prefill.phase, decode.phase) == (Phase.PREFILL, Phase.DECODE)
    assert (prefill.ranges["sequence"].min, prefill.ranges["sequence"].max) == (1, 32)
    assert (decode.ranges["sequence"].min, decode.ranges["sequence"].max) == (1, 1)


def test_usual_prompts_have_profiles_with_static_shapes_beside_the_one_for_all():
    prefill, _ = specs(evolve(LIMITS, opt_input_len=24), LATENCY)
    labels = ["prefill", *(f"prefill batch={rows} sequence=24" for rows in (1, 2, 4))]
    assert [profile.label() for profile in prefill.profiles] == labels
    for rows, profile in zip((1, 2, 4), prefill.profiles[1:], strict=True):
        fixed = {name: (range_.min, range_.opt, range_.max) for name, range_ in profile.ranges.items()}
        assert fixed == {"batch": (rows,) * 3, "sequence": (24,) * 3, "prompt_rows": (1, 8, 16)}


def test_without_a_usual_prompt_there_is_one_profile_for_all():
    prefill, decode = specs(LIMITS, LATENCY)
    assert [profile.label() for profile in prefill.profiles] == ["prefill"]
    assert [profile.label() for profile in decode.profiles] == [f"decode batch={rows}" for rows in (1, 2, 4)]


@pytest.mark.parametrize(
    ("usual", "longest", "slots"),
    [(640, 4096, (768, 1024)), (767, 4096, (768, 1024)), (768, 4096, (1024, 1280)), (600, 700, (700,))],
)
def test_decode_has_static_shapes_for_the_slots_behind_a_usual_prompt(usual, longest, slots):
    limits = evolve(LIMITS, max_batch_size=2, max_input_len=usual, opt_input_len=usual, max_seq_len=longest)
    _, decode = specs(limits, LATENCY)
    wanted = [(rows, count) for rows in (1, 2) for count in (None, *slots)]
    assert [(profile.size("batch"), profile.size("kv_length")) for profile in decode.profiles] == wanted
    anything = decode.profiles[0].ranges["kv_length"]
    assert (anything.min, anything.max) == (1, longest)
    assert min(-(-(usual + 1) // decode.kv_length_step) * decode.kv_length_step, longest) == slots[0]
