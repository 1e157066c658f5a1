"""Rotary embeddings of halves become elementwise layers; those of pairs and of parts of a head stay."""

from __future__ import annotations

import pytest
import torch

from ditto.network import network_text
from ditto.passes.rope_halves import RopeHalves
from ditto.reference import TOLERANCE
from tests.support.passes import check_pass, check_same, network_from

ROPE = """
    input %x: {dtype}[{batch}, 2, {length}, 8]
    input %cos: {dtype}[{batch}, {length}, {half}]
    input %sin: {dtype}[{batch}, {length}, {half}]
    %a.0: {dtype}[{batch}, 2, {length}, 8] = RotaryEmbedding(interleaved={pairs}, width={width}) %x %cos %sin
    output y = %a.0
"""


def rope(dtype="float32", batch="batch", length="sequence", width=8, pairs=False):
    return ROPE.format(dtype=dtype, batch=batch, length=length, half=width // 2, width=width, pairs=pairs)


def test_halves_are_multiplied_by_cosines_and_the_other_halves_by_sines():
    check_pass(
        RopeHalves(),
        rope(batch=2, length=3),
        """
        input %x: float32[2, 2, 3, 8]
        input %cos: float32[2, 3, 4]
        input %sin: float32[2, 3, 4]
        %a.1: float32[2, 1, 3, 1, 4] = Shuffle(reshape=(2, 1, 3, 1, 4)) %cos
        %a.2: float32[2, 1, 3, 1, 4] = Shuffle(reshape=(2, 1, 3, 1, 4)) %sin
        %a.3: float32[2, 1, 3, 1, 4] = Unary(op=NEG) %a.2
        %a.4: float32[2, 2, 3, 2, 4] = Shuffle(reshape=(2, 2, 3, 2, 4)) %x
        %a.5: float32[2, 2, 3, 2, 4] = Slice(start=(0, 0, 0, 1, 0), size=(2, 2, 3, 2, 4), stride=(1, 1, 1, -1, 1)) %a.4
        %a.6: float32[2, 1, 3, 2, 4] = Concatenation(axis=3) %a.3 %a.2
        %a.7: float32[2, 2, 3, 2, 4] = ElementWise(op=PROD) %a.5 %a.6
        %a.8: float32[2, 2, 3, 2, 4] = ElementWise(op=PROD) %a.4 %a.1
        %a.9: float32[2, 2, 3, 2, 4] = ElementWise(op=SUM) %a.8 %a.7
        %a.10: float32[2, 2, 3, 8] = Shuffle(reshape=(2, 2, 3, 8)) %a.9
        output y = %a.10
        """,
    )


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_lengths_may_be_dynamic(dtype):
    network = network_from(rope(dtype))
    result = RopeHalves().run(network)
    assert (result.applied, "RotaryEmbedding" in network_text(result.network)) == (1, False)
    check_same(network, result.network, **TOLERANCE[getattr(torch, dtype)])


@pytest.mark.parametrize("text", [rope(pairs=True), rope(width=4)], ids=["pairs", "a part of the head"])
def test_other_rotations_are_refused(text):
    (refusal,) = check_pass(RopeHalves(), text, text).refused
    assert (str(refusal.place), refusal.reason) == ("a", "not the two halves of a whole head are rotated")
