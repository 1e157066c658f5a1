"""What of a block nothing waits for is a segment of its own."""

from __future__ import annotations

from ditto.passes.body import Body
from ditto.passes.external_weights import ExternalWeights
from ditto.passes.repeated_blocks import RepeatedBlock
from ditto.passes.segments import Segment, segment, segments_of
from tests.support.passes import network_from

# A product, moved and written into a cache, which the block itself does not read; and the block's own sum.
BLOCKS = """
    input %x: float32[2, 4]
    input %index: int32[2]
    input %past_0: float32[2, 1, 8, 4]
    input %past_1: float32[2, 1, 8, 4]
    %w.0: float32[4, 4] = Constant(weight=w0)
    %w.1: float32[4, 4] = Constant(weight=w1)
    %a.0: float32[2, 4] = MatrixMultiply %x %w.0
    %a.1: float32[2, 1, 1, 4] = Shuffle(reshape=(2, 1, 1, 4)) %a.0
    %a.2: float32[2, 1, 8, 4] = KVCacheUpdate %past_0 %a.1 %index
    %a.3: float32[2, 4] = ElementWise(op=SUM) %x %a.0
    %b.0: float32[2, 4] = MatrixMultiply %a.3 %w.1
    %b.1: float32[2, 1, 1, 4] = Shuffle(reshape=(2, 1, 1, 4)) %b.0
    %b.2: float32[2, 1, 8, 4] = KVCacheUpdate %past_1 %b.1 %index
    %b.3: float32[2, 4] = ElementWise(op=SUM) %a.3 %b.0
    output y = %b.3
    output present_0 = %a.2 in %past_0
    output present_1 = %b.2 in %past_1
"""
TWO = RepeatedBlock(0, 4, 2)


def body_of(text):
    network = network_from(text)
    return Body.of(network, ExternalWeights(network, 1))


def test_what_is_for_a_cache_alone_runs_concurrently():
    needed, of_cache = segments_of(body_of(BLOCKS), TWO)
    assert needed == Segment((0, 3), frozenset({(0, 0), (3, 0)}))
    assert of_cache == Segment((1, 2), frozenset({(2, 0)}), is_concurrent=True)


def test_what_moves_elements_for_both_is_done_twice():
    text = BLOCKS.replace("%x %a.0\n", "%x %a.9\n").replace("%a.3 %b.0\n", "%a.3 %b.9\n")
    for block in "ab":
        text = text.replace(
            f"    %{block}.3:", f"    %{block}.9: float32[2, 4] = Shuffle(reshape=(2, 4)) %{block}.1\n    %{block}.3:"
        )
    needed, of_cache = segments_of(body_of(text), RepeatedBlock(0, 5, 2))
    assert needed.offsets == (0, 1, 3, 4)
    assert of_cache == Segment((1, 2), frozenset({(2, 0)}), is_concurrent=True)
    assert needed.outputs == {(0, 0), (4, 0)}  # the product, and the sum: nobody is handed what is done twice


def test_a_cache_that_is_read_is_computed_in_the_block():
    text = BLOCKS.replace(
        "    output y = %b.3",
        "    %c.0: float32[2, 1, 8, 4] = Softmax(axis=3) %a.2\n    output y = %b.3\n    output z = %c.0",
    )
    (whole,) = segments_of(body_of(text), TWO)
    assert whole.offsets == (0, 1, 2, 3)
    assert not whole.is_concurrent


def test_a_segment_hands_on_what_is_read_outside_of_its_block():
    body = body_of(BLOCKS)
    assert segment(body, RepeatedBlock(0, 4, 1), range(4)).outputs == {(2, 0), (3, 0)}
    assert segment(body, RepeatedBlock(4, 4, 1), range(4)).outputs == {(2, 0), (3, 0)}
    assert segment(body, RepeatedBlock(0, 2, 1), range(2)).outputs == {(0, 0), (1, 0)}
