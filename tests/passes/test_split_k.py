"""Products of single rows become sums over parts of the inner size, and compute the same."""

from __future__ import annotations

import pytest
import torch

from ditto.network import network_text
from ditto.passes.split_k import SplitK
from ditto.reference import TOLERANCE
from tests.support.passes import check_pass, check_same, network_from

SMALL = SplitK(shortest_part=2, many_columns=12, alignment=2)
FP32 = TOLERANCE[torch.float32]


def product(rows=1, columns=6, inner=8, dtype="float32"):
    """A linear layer with a bias."""
    return f"""
        input %x: {dtype}[batch, {rows}, {inner}]
        %a.0: {dtype}[1, {columns}, {inner}] = Constant(weight=w)
        %a.1: {dtype}[batch, {rows}, {columns}] = MatrixMultiply(transpose_y=True) %x %a.0
        %a.2: {dtype}[1, 1, {columns}] = Constant(weight=b)
        %a.3: {dtype}[batch, {rows}, {columns}] = ElementWise(op=SUM) %a.1 %a.2
        output y = %a.3
    """


def test_a_single_row_is_multiplied_in_four_parts():
    result = check_pass(
        SMALL,
        product(),
        """
        input %x: float32[batch, 1, 8]
        %a.0: float32[1, 6, 8] = Constant(weight=w)
        %a.4: float32[batch, 4, 2] = Shuffle(reshape=(0, 4, 2)) %x
        %a.5: float32[4, batch, 2] = Shuffle(first=(1, 0, 2)) %a.4
        %a.6: float32[6, 4, 2] = Shuffle(reshape=(6, 4, 2)) %a.0
        %a.7: float32[4, 6, 2] = Shuffle(first=(1, 0, 2)) %a.6
        %a.8: float32[4, batch, 6] = MatrixMultiply(transpose_y=True) %a.5 %a.7
        %a.9: float32[batch, 4, 6] = Shuffle(first=(1, 0, 2)) %a.8
        %a.10: float32[batch, 1, 6] = Reduce(op=SUM, axes=(1), keep=True) %a.9
        %a.2: float32[1, 1, 6] = Constant(weight=b)
        %a.3: float32[batch, 1, 6] = ElementWise(op=SUM) %a.10 %a.2
        output y = %a.3
        """,
        **FP32,
    )
    assert (result.applied, result.refused) == (1, ())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_parts_are_added_in_float32(dtype):
    network = network_from(product(dtype=dtype))
    after = SMALL.run(network).network
    check_same(network, after, **TOLERANCE[getattr(torch, dtype)])
    assert "Reduce(op=SUM, axes=(1), keep=True)" in network_text(after)
    (reduced,) = (node for node in after.nodes if type(node.layer).__name__ == "Reduce")
    assert after.value(reduced.inputs[0]).spec.dtype == torch.float32


def test_many_columns_are_multiplied_in_two_parts():
    network = network_from(product(columns=12))
    after = SMALL.run(network).network
    check_same(network, after, **FP32)
    assert "%a.8: float32[2, batch, 12] = MatrixMultiply" in network_text(after)


def test_several_rows_are_multiplied_whole():
    text = product(rows=2)
    result = check_pass(SMALL, text, text)
    assert (result.applied, result.refused) == (0, ())


def test_a_short_inner_size_is_refused():
    text = product(inner=3)
    (refusal,) = check_pass(SMALL, text, text).refused
    assert str(refusal.place) == "a"
    assert refusal.reason == "an inner size of 3 has no parts of 2 or more"


@pytest.mark.parametrize(
    ("columns", "inner", "wanted"),
    [
        (4096, 11008, 4),
        (4096, 4096, 4),
        (22016, 4096, 2),
        (8192, 4096, 2),
        (8191, 4096, 4),
        (4096, 2048, 4),
        (4096, 1024, 2),
        (32064, 1024, 2),
        (4096, 1008, 1),
        (2048, 4112, 2),
        (2048, 4104, 1),
    ],
)
def test_parts_are_long_and_aligned_and_the_more_the_fewer_columns(columns, inner, wanted):
    assert SplitK(shortest_part=512, many_columns=8192).parts(columns, inner) == wanted
