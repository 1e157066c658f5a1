"""Tuning says which passes run with which parameters; a portable engine has none but those that simplify."""

from __future__ import annotations

import pytest
from attrs import evolve

from ditto.arguments import DynamicDimension
from ditto.configs import Limits
from ditto.configs.build import PRESETS, BuildSettings
from ditto.passes import SIMPLIFY
from ditto.passes.bias_halves import BiasHalves
from ditto.passes.column_blocks import ColumnBlocks
from ditto.passes.rope_halves import RopeHalves
from ditto.passes.spec import passes_of
from ditto.passes.split_k import SplitK
from ditto.passes.transpose_chains import TransposeChains
from ditto.targets import target
from ditto.targets.tensorrt.tuning import H200, TUNINGS, Tuning
from tests.support.describing import language_part, vision_part
from tests.support.optimizing import LATENCY

BLOCKS, SPLIT = ColumnBlocks(2048, 8), SplitK(512, 8192, 8)


def tuned(passes):
    """The passes between those that simplify, before and after."""
    around = len(SIMPLIFY)
    assert passes[:around] == passes[-around:] == SIMPLIFY
    return passes[around:-around]


def test_without_tuning_networks_are_simplified_and_no_more():
    none = Tuning.none()
    assert none.vision_passes() == none.prefill_passes() == none.decode_passes() == SIMPLIFY


def test_an_h200_has_all_passes_in_their_order():
    assert tuned(H200.vision_passes()) == (BiasHalves(),)
    assert tuned(H200.prefill_passes()) == (RopeHalves(), TransposeChains(BLOCKS), BLOCKS, SPLIT)
    assert tuned(H200.decode_passes()) == (SPLIT,)


@pytest.mark.parametrize(
    ("off", "prefill"),
    [
        ({"rope_halves": False}, (TransposeChains(BLOCKS), BLOCKS, SPLIT)),
        ({"transpose_chains": False}, (RopeHalves(), BLOCKS, SPLIT)),
        ({"column_block": None}, (RopeHalves(), SPLIT)),
        ({"split_k_shortest": None}, (RopeHalves(), TransposeChains(BLOCKS), BLOCKS)),
    ],
)
def test_each_pass_can_be_left_out(off, prefill):
    assert tuned(evolve(H200, **off).prefill_passes()) == prefill


def test_the_table_names_compute_capabilities_and_no_entry_is_empty():
    for capability, tuning in TUNINGS.items():
        major, minor = capability.split(".")
        assert int(major) >= 7 and minor.isdigit()
        assert tuning != Tuning.none()


@pytest.mark.parametrize(("name", "tuning"), [("tensorrt-rtx", H200), ("tensorrt", Tuning.none())])
def test_engines_are_tuned_for_latency_and_by_rtx_alone(name, tuning):
    limits = Limits(max_batch_size=2, max_input_len=700, max_seq_len=2048, max_num_tokens=2048, opt_input_len=640)
    chosen, settings = target(name), BuildSettings(**PRESETS["latency"], compute_capabilities=("9.0",))
    images = vision_part(DynamicDimension.up_to("images", 2))
    for stated, passes in ((settings, tuning.vision_passes()), (BuildSettings(), SIMPLIFY)):
        (vision,) = chosen.specs(images, stated)
        assert passes_of(vision.passes) == passes
    prefill, decode = chosen.specs(language_part(limits), settings)
    assert passes_of(prefill.passes) == tuning.prefill_passes()
    assert passes_of(decode.passes) == tuning.decode_passes()
    assert decode.kv_length_step == tuning.kv_length_step


def test_decode_reads_as_many_slots_as_the_tuning_says(monkeypatch):
    monkeypatch.setitem(TUNINGS, "9.0", evolve(H200, kv_length_step=100))
    limits = Limits(max_batch_size=1, max_input_len=700, max_seq_len=2048, max_num_tokens=2048, opt_input_len=640)
    _, decode = target("tensorrt-rtx").specs(language_part(limits), LATENCY)
    assert [profile.size("kv_length") for profile in decode.profiles] == [None, 700, 800]
    assert decode.kv_length_step == 100


@pytest.mark.parametrize(
    ("rows", "kv_heads", "form"),
    [(1, 1, "sums"), (15, 1, "sums"), (16, 1, "products"), (64, 1, "products"), (64, 2, "sums"), (64, 4, "sums")],
)
@pytest.mark.parametrize("tuning", ["9.0", "none"])
def test_decode_attention_has_the_form_that_is_fast_for_rows_and_kv_heads(rows, kv_heads, form, tuning):
    limits = Limits(max_batch_size=rows, max_input_len=700, max_seq_len=2048, max_num_tokens=2048)
    part = language_part(limits)
    part = evolve(part, decoder=evolve(part.decoder, num_key_value_heads=kv_heads))
    specs = target("tensorrt-rtx").specs(part, evolve(LATENCY, tuning=tuning))
    assert [spec.decode_attention for spec in specs] == [form, form]
    (combined,) = target("tensorrt-rtx").specs(part, BuildSettings())
    assert combined.decode_attention is None
