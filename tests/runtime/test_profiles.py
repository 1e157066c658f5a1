"""Batches find the optimization profile that was made for them."""

from __future__ import annotations

import pytest
from attrs import evolve

from ditto.arguments import DynamicDimension
from ditto.configs import TensorRTConfig
from ditto.engine import Component, EngineSpec, EngineTree, Phase, Profile
from ditto.runtime.profiles import (
    PrefillCall,
    component_for,
    decode_profile,
    dynamic_prefill_profile,
    kv_length_bucket,
    padded_length,
    prefill_profile,
    profile_for,
)


def profile(phase: Phase, **ranges: tuple[int, int, int]) -> Profile:
    return Profile(phase, {name: DynamicDimension(name, *sizes) for name, sizes in ranges.items()})


def component(*profiles: Profile, kv_length_step: int | None = None) -> Component:
    spec = EngineSpec(
        name="llm",
        part="llm",
        dtype="float16",
        profiles=profiles,
        weights="embedded",
        passes=(),
        kv_length_step=kv_length_step,
        tensorrt=TensorRTConfig(),
        compute_capabilities=(),
    )
    return Component(
        directory=".",
        engines=[["an.engine"]],
        spec=spec,
        inputs={},
        outputs={},
        shared={},
        layers={},
        weights="checkpoint",
    )


FIXED = component(*(profile(Phase.DECODE, batch=(rows,) * 3) for rows in (1, 2, 4, 6)))
RANGES = component(profile(Phase.PREFILL, batch=(1, 3, 6)), profile(Phase.DECODE, batch=(1, 3, 6)))


def tree_of(tree: EngineTree, **components: Component) -> EngineTree:
    return evolve(tree, manifest=evolve(tree.manifest, components=components))


@pytest.mark.parametrize(("batch", "wanted"), [(1, (0, 1)), (2, (1, 2)), (3, (2, 4)), (4, (2, 4)), (5, (3, 6))])
def test_a_batch_between_fixed_ones_takes_the_next(batch, wanted):
    assert profile_for(FIXED, Phase.DECODE, "batch", batch) == wanted


def test_a_range_takes_a_batch_as_it_is_and_phases_decide_between_ranges():
    assert profile_for(RANGES, Phase.DECODE, "batch", 5) == (1, 5)
    assert profile_for(RANGES, Phase.PREFILL, "batch", 5) == (0, 5)


def test_more_than_any_profile_includes_is_an_error():
    with pytest.raises(ValueError, match="no decode profile includes batch 7"):
        profile_for(FIXED, Phase.DECODE, "batch", 7)


@pytest.mark.parametrize(("count", "wanted"), [(1, 256), (256, 256), (257, 512), (900, 1000)])
def test_decode_reads_few_different_lengths_of_the_cache(llama_tree, count, wanted):
    steps = component(profile(Phase.DECODE, batch=(1, 1, 1)), kv_length_step=256)
    assert kv_length_bucket(tree_of(llama_tree, llm=steps), count, 1000) == wanted


def test_an_engine_without_a_step_reads_the_whole_cache(llama_tree):
    assert kv_length_bucket(llama_tree, 1, 1000) == 1000


def test_one_engine_runs_prompts_and_tokens_on_profiles_of_its_own(llama_tree):
    assert component_for(llama_tree, Phase.PREFILL) == component_for(llama_tree, Phase.DECODE) == "llm"
    assert (prefill_profile(llama_tree, 1, 5).profile, decode_profile(llama_tree, 1)) == (0, (1, 1))


def test_components_are_found_by_what_their_profiles_are_for_whatever_their_names(llama_tree):
    tree = tree_of(
        llama_tree,
        eyes=component(profile(Phase.ENCODE, batch=(1, 1, 1))),
        prompts=component(profile(Phase.PREFILL, batch=(1, 1, 1), sequence=(1, 4, 8))),
        steps=component(profile(Phase.DECODE, batch=(1, 1, 1))),
    )
    found = [component_for(tree, phase) for phase in (Phase.ENCODE, Phase.PREFILL, Phase.DECODE)]
    assert found == ["eyes", "prompts", "steps"]


def test_a_packed_engine_runs_both(llama_tree):
    tree = tree_of(llama_tree, llm=component(profile(Phase.MIXED, tokens=(1, 4, 8))))
    assert component_for(tree, Phase.PREFILL) == component_for(tree, Phase.DECODE) == "llm"
    with pytest.raises(ValueError, match="no engine for encode"):
        component_for(tree, Phase.ENCODE)


@pytest.mark.parametrize(
    ("rows", "kv_length", "wanted"),
    [(1, 256, (0, 1)), (1, 512, (1, 1)), (2, 512, (3, 2)), (2, 768, (2, 2)), (3, 512, (4, 4)), (2, None, (2, 2))],
)
def test_decode_over_as_many_slots_as_a_profile_is_for_takes_that(llama_tree, rows, kv_length, wanted):
    profiles = []
    for batch in (1, 2, 4):
        profiles.append(profile(Phase.DECODE, batch=(batch,) * 3, kv_length=(1, 512, 1024)))
        if batch < 4:
            profiles.append(profile(Phase.DECODE, batch=(batch,) * 3, kv_length=(512,) * 3))
    assert decode_profile(tree_of(llama_tree, decode=component(*profiles)), rows, kv_length) == wanted


@pytest.mark.parametrize(
    ("length", "longest", "wanted"),
    [(1, 256, 64), (64, 256, 64), (65, 256, 128), (250, 256, 256), (250, 251, 251), (30, 32, 32)],
)
def test_prompts_are_padded_to_few_lengths_within_the_engines_limit(length, longest, wanted):
    assert padded_length(length, longest) == wanted


@pytest.mark.parametrize(
    ("rows", "length", "wanted"),
    [
        (1, 27, PrefillCall(1, 27, is_fixed=True)),
        (1, 24, PrefillCall(1, 27, is_fixed=True)),
        (1, 23, PrefillCall(0, 32, is_fixed=False)),
        (1, 28, PrefillCall(0, 32, is_fixed=False)),
        (2, 24, PrefillCall(2, 27, is_fixed=True)),
        (3, 24, PrefillCall(0, 32, is_fixed=False)),
        (4, 27, PrefillCall(3, 27, is_fixed=True)),
    ],
)
def test_typical_prompts_take_the_profile_of_their_batch_and_a_length_little_above_theirs(
    llama_tree, rows, length, wanted
):
    anything = profile(Phase.PREFILL, batch=(1, 2, 4), sequence=(1, 16, 32))
    fixed = (profile(Phase.PREFILL, batch=(count,) * 3, sequence=(27,) * 3) for count in (1, 2, 4))
    assert prefill_profile(tree_of(llama_tree, llm=component(anything, *fixed)), rows, length) == wanted


def test_a_typical_prompt_of_one_token_leaves_the_profile_for_any_prompt_to_the_others(llama_tree):
    fixed = profile(Phase.PREFILL, batch=(1, 1, 1), sequence=(1, 1, 1))
    anything = profile(Phase.PREFILL, batch=(1, 1, 1), sequence=(1, 16, 32))
    assert dynamic_prefill_profile(tree_of(llama_tree, llm=component(fixed, anything))) == 1
