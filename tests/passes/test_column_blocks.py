"""Products with many columns become batches of products, and compute the same."""

from __future__ import annotations

import pytest
import torch

from ditto.network import network_text
from ditto.passes.column_blocks import ColumnBlocks
from ditto.reference import TOLERANCE
from tests.support.passes import check_pass, check_same, network_from

SMALL = ColumnBlocks(width=2, alignment=1)


def product(columns, length="sequence", dtype="float32"):
    """A linear layer."""
    return f"""
        input %x: {dtype}[batch, {length}, 4]
        %a.0: {dtype}[1, {columns}, 4] = Constant(weight=w)
        %a.1: {dtype}[batch, {length}, {columns}] = MatrixMultiply(transpose_y=True) %x %a.0
        output y = %a.1
    """


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_many_columns_are_multiplied_in_blocks(dtype):
    result = check_pass(
        SMALL,
        product(6, 5, dtype),
        f"""
        input %x: {dtype}[batch, 5, 4]
        %a.0: {dtype}[1, 6, 4] = Constant(weight=w)
        %a.2: {dtype}[1, 5*batch, 4] = Shuffle(reshape=(1, -1, 4)) %x
        %a.3: {dtype}[3, 2, 4] = Shuffle(reshape=(3, 2, 4)) %a.0
        %a.4: {dtype}[3, 5*batch, 2] = MatrixMultiply(transpose_y=True) %a.2 %a.3
        %a.5: {dtype}[5*batch, 3, 2] = Shuffle(first=(1, 0, 2)) %a.4
        %a.6: {dtype}[batch, 5, 6] = Shuffle(reshape=(-1, 5, 6)) %a.5
        output y = %a.6
        """,
        **TOLERANCE[getattr(torch, dtype)],
    )
    assert (result.applied, result.refused) == (1, ())


def test_lengths_may_be_dynamic():
    network = network_from(product(4))
    result = SMALL.run(network)
    check_same(network, result.network, **TOLERANCE[torch.float32])
    assert result.applied == 1
    assert "float32[2, batch*sequence, 2] = MatrixMultiply(transpose_y=True)" in network_text(result.network)


def test_a_single_row_is_left_alone():
    text = product(6, 1)
    result = check_pass(SMALL, text, text)
    assert (result.applied, result.refused) == (0, ())


def test_few_columns_are_refused():
    text = product(3)
    (refusal,) = check_pass(SMALL, text, text).refused
    assert (str(refusal.place), refusal.reason) == ("a", "3 columns have no equal blocks of 2 or more")


@pytest.mark.parametrize(("columns", "wanted"), [(22016, 8), (12288, 6), (4095, 1), (4096, 2), (3, 1), (15360, 6)])
def test_blocks_are_large_and_equal(columns, wanted):
    assert ColumnBlocks(width=2048).blocks(columns) == wanted
