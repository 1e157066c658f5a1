"""The blocks of a body are found by what repeats, and cut before a product with a weight."""

from __future__ import annotations

import pytest

from ditto.network.layers import MatrixMultiply
from ditto.passes.body import Body
from ditto.passes.external_weights import ExternalWeights
from ditto.passes.repeated_blocks import RepeatedBlock, find_repeated_block
from tests.support.passes import network_from


def body_of(*lines):
    """The body of a network: each line reads %0, the value before it, and for `w` a weight of its own."""
    text, last = ["input %x: float32[2, 4]"], "x"
    for number, line in enumerate(lines):
        if "%w" in line:
            text.append(f"%w.{number}: float32[4, 4] = Constant(weight=w{number})")
        text.append(f"%v.{number}: float32[2, 4] = {line.replace('%0', f'%{last}').replace('%w', f'%w.{number}')}")
        last = f"v.{number}"
    network = network_from("\n".join([*text, f"output y = %{last}"]))
    return Body.of(network, ExternalWeights(network, 1))


PRODUCT, TANH, EXP, SIN = "MatrixMultiply %0 %w", "Activation(function=TANH) %0", "Unary(op=EXP) %0", "Unary(op=SIN) %0"


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        ([SIN, *[PRODUCT, TANH] * 3, EXP], RepeatedBlock(1, 2, 3)),
        ([PRODUCT, TANH, EXP, SIN], None),
        ([*[PRODUCT, TANH] * 2, *[PRODUCT, EXP] * 3], RepeatedBlock(4, 2, 3)),
        # A norm, as it were, before each product: it stays with the product before.
        ([*[EXP, TANH, PRODUCT] * 4, SIN], RepeatedBlock(2, 3, 3)),
    ],
)
def test_blocks_are_what_repeats_most(lines, wanted):
    assert find_repeated_block(body_of(*lines)) == wanted


def test_a_block_begins_with_a_product_with_a_weight():
    body = body_of(*[EXP, TANH, PRODUCT] * 4)
    block = find_repeated_block(body)
    assert block is not None
    assert all(isinstance(body.nodes[first].layer, MatrixMultiply) for first in block.firsts)


def test_a_block_knows_where_it_ends():
    block = RepeatedBlock(start=3, period=5, count=2)
    assert block.stop == 13
    assert list(block.firsts) == [3, 8]
