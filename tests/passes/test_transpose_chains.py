"""Products with the matrix on the left, and what stands between them transposed, compute the same."""

from __future__ import annotations

import pytest
import torch

from ditto.network.layers import MatrixMultiply
from ditto.passes.column_blocks import ColumnBlocks
from ditto.passes.transpose_chains import TransposeChains
from ditto.reference import TOLERANCE
from tests.support.passes import check_pass, check_same, network_from

SMALL = TransposeChains(ColumnBlocks(width=2, alignment=1))
WHOLE = TransposeChains(ColumnBlocks(width=1 << 20))
FP32 = TOLERANCE[torch.float32]

MLP = """
    input %x: {dtype}[2, 5, 4]
    %up.0: {dtype}[1, 8, 4] = Constant(weight=up)
    %up.1: {dtype}[2, 5, 8] = MatrixMultiply(transpose_y=True) %x %up.0
    %up.2: {dtype}[1, 1, 8] = Constant(weight=up_bias)
    %up.3: {dtype}[2, 5, 8] = ElementWise(op=SUM) %up.1 %up.2
    %act.0: {dtype}[2, 5, 8] = {between} %up.3
    %down.0: {dtype}[1, 4, 8] = Constant(weight=down)
    %down.1: {dtype}[2, 5, 4] = MatrixMultiply(transpose_y=True) %act.0 %down.0
    %sum.0: {dtype}[2, 5, 4] = ElementWise(op=SUM) %x %down.1
    output y = %sum.0
"""
GATED = """
    input %x: float32[2, 5, 4]
    %both.0: float32[1, 12, 4] = Constant(weight=both)
    %both.1: float32[2, 5, 12] = MatrixMultiply(transpose_y=True) %x %both.0
    %act.0: float32[2, 5, 6] = Slice(start=(0, 0, 0), size=(2, 5, 6), stride=(1, 1, 1)) %both.1
    %act.1: float32[2, 5, 6] = Slice(start=(0, 0, 6), size=(2, 5, 6), stride=(1, 1, 1)) %both.1
    %act.2: float32[2, 5, 6] = Activation(function=SIGMOID) %act.0
    %act.3: float32[2, 5, 6] = ElementWise(op=PROD) %act.0 %act.2
    %act.4: float32[1, 1, 1] = Constant(weight=literal 2)
    %act.5: float32[2, 5, 6] = ElementWise(op=PROD) %act.3 %act.4
    %act.6: float32[2, 5, 6] = ElementWise(op=PROD) %act.5 %act.1
    %down.0: float32[1, 4, 6] = Constant(weight=down)
    %down.1: float32[2, 5, 4] = MatrixMultiply(transpose_y=True) %act.6 %down.0
    output y = %down.1
"""


def matrices(network):
    """For each product, in order, on which side the weights are, and the shapes of both sides."""
    found = []
    for node in network.nodes:
        if isinstance(node.layer, MatrixMultiply):
            left, right = (network.value(name).spec.shape for name in node.inputs)
            found.append(("right" if {5, 10} & {*left} else "left", left, right))
    return found


def transposed(text, each=SMALL, **tolerance):
    """The result of a pass, which computes the same."""
    network = network_from(text)
    result = each.run(network)
    check_same(network, result.network, **(tolerance or FP32))
    return result


def test_what_stands_between_two_products_is_computed_transposed():
    result = check_pass(
        WHOLE,
        MLP.format(dtype="float32", between="Activation(function=RELU)"),
        """
        input %x: float32[2, 5, 4]
        %up.0: float32[1, 8, 4] = Constant(weight=up)
        %up.4: float32[1, 10, 4] = Shuffle(reshape=(1, 10, 4)) %x
        %up.5: float32[1, 8, 10] = MatrixMultiply(transpose_y=True) %up.0 %up.4
        %up.6: float32[8, 2, 5] = Shuffle(reshape=(8, 2, 5)) %up.5
        %up.7: float32[2, 5, 8] = Shuffle(first=(1, 2, 0)) %up.6
        %up.2: float32[1, 1, 8] = Constant(weight=up_bias)
        %up.3: float32[2, 5, 8] = ElementWise(op=SUM) %up.7 %up.2
        %act.0: float32[2, 5, 8] = Activation(function=RELU) %up.3
        %down.0: float32[1, 4, 8] = Constant(weight=down)
        %down.2: float32[1, 8, 1] = Constant(weight=reshape(up_bias, [1, 8, 1]))
        %down.3: float32[1, 8, 10] = ElementWise(op=SUM) %up.5 %down.2
        %down.4: float32[1, 8, 10] = Activation(function=RELU) %down.3
        %down.5: float32[1, 4, 10] = MatrixMultiply %down.0 %down.4
        %down.6: float32[4, 2, 5] = Shuffle(reshape=(4, 2, 5)) %down.5
        %down.7: float32[2, 5, 4] = Shuffle(first=(1, 2, 0)) %down.6
        %sum.0: float32[2, 5, 4] = ElementWise(op=SUM) %x %down.7
        output y = %sum.0
        """,
        **FP32,
    )
    assert (result.applied, result.refused) == (2, ())


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("between", ["Activation(function=GELU_ERF)", "Unary(op=NEG)", "Activation(function=TANH)"])
def test_transposed_products_are_in_blocks(dtype, between):
    result = transposed(MLP.format(dtype=dtype, between=between), **TOLERANCE[getattr(torch, dtype)])
    up, down = matrices(result.network)
    assert up == ("left", (4, 2, 4), (1, 10, 4))
    assert down == ("left", (2, 2, 8), (1, 8, 10))


def test_a_gate_is_computed_transposed():
    result = transposed(GATED)
    assert matrices(result.network) == [("left", (6, 2, 4), (1, 10, 4)), ("left", (2, 2, 6), (1, 6, 10))]


def test_with_dynamic_sizes_too():
    text = GATED.replace("[2, 5, ", "[batch, 5, ")
    for size in ("4", "6", "12"):
        text = text.replace(f"size=(2, 5, {size})", f"size=(batch, 5, {size})")
    text = text.replace("    %act.0:", "    %act.9: int64[3] = Constant(weight=literal 6)\n    %act.0:")
    text = "\n".join(f"{line} %s" if "Slice(" in line else line for line in text.splitlines())
    sizes = """
    %s.0: int64[3] = Shape %x
    %s.1: int64[2] = Slice(start=(0), size=(2), stride=(1)) %s.0
    %s.2: int64[1] = Constant(weight=literal 6)
    %s: int64[3] = Concatenation(axis=0) %s.1 %s.2"""
    text = text.replace("    %act.9: int64[3] = Constant(weight=literal 6)\n", sizes.lstrip("\n") + "\n")
    result = transposed(text)
    assert [side for side, *_ in matrices(result.network)] == ["left", "left"]


def test_columns_that_are_read_elsewhere_too_come_out_right():
    text = GATED.replace(
        "    output y = %down.1",
        "    %both.9: float32[2, 5, 12] = Softmax(axis=2) %both.1\n    output y = %down.1\n    output z = %both.9",
    )
    result = transposed(text)
    assert [side for side, *_ in matrices(result.network)] == ["right", "left"]
    (refusal,) = result.refused
    assert str(refusal.place) == "both"
    assert refusal.reason == "a product with more columns than inputs is read by more than products"


def test_a_product_with_more_columns_whose_result_is_an_output_stays():
    result = transposed(GATED + "    output z = %both.1\n")
    assert [side for side, *_ in matrices(result.network)] == ["right", "left"]


def test_what_mixes_columns_is_computed_in_rows():
    result = transposed(MLP.format(dtype="float32", between="Softmax(axis=2)"))
    assert matrices(result.network)[1] == ("left", (2, 2, 8), (1, 10, 8))


def test_rows_that_are_cut_are_not_taken_for_columns():
    """The transposed product is read by a slice that repeats a token, or by one that takes columns backwards."""
    for cut in ("start=(0, 1, 0), stride=(1, 0, 1)", "start=(0, 0, 7), stride=(1, 1, -1)"):
        result = transposed(MLP.format(dtype="float32", between=f"Slice({cut}, size=(2, 5, 8))"))
        assert matrices(result.network)[1] == ("left", (2, 2, 8), (1, 10, 8))


def test_numbers_for_each_token_are_not_taken_for_columns():
    text = MLP.format(dtype="float32", between="Activation(function=RELU)").replace("[1, 1, 8]", "[2, 5, 8]")
    result = transposed(text)
    assert matrices(result.network)[1] == ("left", (2, 2, 8), (1, 10, 8))


def test_single_rows_are_left_alone():
    text = MLP.format(dtype="float32", between="Activation(function=RELU)").replace("[2, 5,", "[2, 1,")
    result = check_pass(SMALL, text, text)
    assert (result.applied, result.refused) == (0, ())
