"""Tuning says which passes run with which parameters; a portable engine has none but those that simplify."""

from __future__ import annotations

import pytest
from attrs import evolve

from ditto.passes import SIMPLIFY
from ditto.passes.bias_halves import BiasHalves
from ditto.passes.column_blocks import ColumnBlocks
from ditto.passes.rope_halves import RopeHalves
from ditto.passes.split_k import SplitK
from ditto.passes.transpose_chains import TransposeChains
from ditto.targets.tensorrt.tuning import H200, Tuning

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
