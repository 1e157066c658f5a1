"""Batches find the profile that was made for them."""

from __future__ import annotations

import pytest
from attrs import evolve

from ditto.engine import Component
from ditto.runtime.profiles import (
    Prompts,
    decode_profile,
    decoder,
    live_slots,
    padded_length,
    prefill_profile,
    profile_for,
    profile_for_all_prompts,
)


def component(**profiles: tuple[int, int, int]) -> Component:
    return Component(
        folder=".",
        engines=["an.engine"],
        dtype="float16",
        inputs={},
        outputs={},
        shared={},
        profiles={name.replace("_", "-"): {"batch": list(sizes)} for name, sizes in profiles.items()},
        layers={},
        weights="checkpoint",
    )


FIXED = component(decode_1=(1, 1, 1), decode_2=(2, 2, 2), decode_4=(4, 4, 4), decode_6=(6, 6, 6))
RANGES = component(prefill=(1, 3, 6), decode=(1, 3, 6))


@pytest.mark.parametrize(("batch", "wanted"), [(1, (0, 1)), (2, (1, 2)), (3, (2, 4)), (4, (2, 4)), (5, (3, 6))])
def test_a_batch_between_fixed_ones_takes_the_next(batch, wanted):
    assert profile_for(FIXED, "batch", batch) == wanted


def test_a_range_takes_a_batch_as_it_is_and_names_decide_between_ranges():
    assert profile_for(RANGES, "batch", 5, name="decode") == (1, 5)
    assert profile_for(RANGES, "batch", 5, name="prefill") == (0, 5)


def test_more_than_any_profile_takes_is_an_error():
    with pytest.raises(ValueError, match="no profile takes batch 7"):
        profile_for(FIXED, "batch", 7)


@pytest.mark.parametrize(("count", "wanted"), [(1, 256), (256, 256), (257, 512), (900, 1000)])
def test_decode_looks_at_few_different_numbers_of_slots(count, wanted):
    assert live_slots(count, 1000) == wanted


def test_one_engine_runs_prompts_and_tokens_on_profiles_of_its_own(llama_tree):
    assert decoder(llama_tree) == "llm"
    prefill, decode = llama_tree.component("llm").profiles
    assert (prefill, decode) == ("prefill", "decode")
    assert (prefill_profile(llama_tree, 1, 5).profile, decode_profile(llama_tree, 1)) == (0, (1, 1))


@pytest.mark.parametrize(
    ("rows", "live", "wanted"),
    [(1, 256, (0, 1)), (1, 512, (1, 1)), (2, 512, (3, 2)), (2, 768, (2, 2)), (3, 512, (4, 4)), (2, None, (2, 2))],
)
def test_decode_over_as_many_slots_as_a_profile_is_for_takes_that(llama_tree, rows, live, wanted):
    profiles = {}
    for batch in (1, 2, 4):
        profiles[f"decode-{batch}"] = {"batch": [batch] * 3, "live": [1, 512, 1024]}
        if batch < 4:
            profiles[f"decode-{batch}x512"] = {"batch": [batch] * 3, "live": [512] * 3}
    decode = evolve(llama_tree.component("llm"), profiles=profiles)
    components = {**llama_tree.manifest.components, "decode": decode}
    tree = evolve(llama_tree, manifest=evolve(llama_tree.manifest, components=components))
    assert decode_profile(tree, rows, live) == wanted


@pytest.mark.parametrize(
    ("length", "longest", "wanted"),
    [(1, 256, 64), (64, 256, 64), (65, 256, 128), (250, 256, 256), (250, 251, 251), (30, 32, 32)],
)
def test_prompts_are_padded_to_few_lengths_within_the_engines_limit(length, longest, wanted):
    assert padded_length(length, longest) == wanted


@pytest.mark.parametrize(
    ("rows", "length", "wanted"),
    [
        (1, 27, Prompts(1, 27, is_fixed=True)),
        (1, 24, Prompts(1, 27, is_fixed=True)),
        (1, 23, Prompts(0, 32, is_fixed=False)),
        (1, 28, Prompts(0, 32, is_fixed=False)),
        (2, 24, Prompts(2, 27, is_fixed=True)),
        (3, 24, Prompts(0, 32, is_fixed=False)),
        (4, 27, Prompts(3, 27, is_fixed=True)),
    ],
)
def test_usual_prompts_take_the_profile_of_their_batch_and_a_length_little_above_theirs(
    llama_tree, rows, length, wanted
):
    anything = {"batch": [1, 2, 4], "sequence": [1, 16, 32]}
    fixed = {f"prefill-{count}x27": {"batch": [count] * 3, "sequence": [27] * 3} for count in (1, 2, 4)}
    llm = evolve(llama_tree.component("llm"), profiles={"prefill": anything, **fixed})
    tree = evolve(llama_tree, manifest=evolve(llama_tree.manifest, components={"llm": llm}))
    assert prefill_profile(tree, rows, length) == wanted


def test_a_usual_prompt_of_one_token_leaves_the_profile_for_all_to_the_others(llama_tree):
    fixed = {"prefill-1x1": {"batch": [1] * 3, "sequence": [1] * 3}, "prefill": {"sequence": [1, 16, 32]}}
    llm = evolve(llama_tree.component("llm"), profiles=fixed)
    tree = evolve(llama_tree, manifest=evolve(llama_tree.manifest, components={"llm": llm}))
    assert profile_for_all_prompts(tree) == 1
