"""Biases before activations are added to halves; others stay as they are."""

from __future__ import annotations

import pytest

from ditto.passes.bias_halves import BiasHalves
from tests.support.passes import check_pass

PRODUCT = """
    input %x: {dtype}[2, 5, 4]
    %a.0: {dtype}[1, {columns}, 4] = Constant(weight=w)
    %a.1: {dtype}[2, 5, {columns}] = MatrixMultiply(transpose_y=True) %x %a.0
    %a.2: {dtype}[1, 1, {columns}] = Constant(weight=b)
    %a.3: {dtype}[2, 5, {columns}] = ElementWise(op=SUM) %a.1 %a.2
"""
ACTIVATION = "    %a.4: {dtype}[2, 5, {columns}] = Activation(function=RELU) %a.3\n    output y = %a.4"


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_bias_is_added_to_halves(dtype):
    result = check_pass(
        BiasHalves(),
        (PRODUCT + ACTIVATION).format(dtype=dtype, columns=6),
        f"""
        input %x: {dtype}[2, 5, 4]
        %a.0: {dtype}[1, 6, 4] = Constant(weight=w)
        %a.1: {dtype}[2, 5, 6] = MatrixMultiply(transpose_y=True) %x %a.0
        %a.2: {dtype}[1, 1, 6] = Constant(weight=b)
        %a.5: {dtype}[2, 5, 3] = Slice(start=(0, 0, 0), size=(2, 5, 3), stride=(1, 1, 1)) %a.1
        %a.6: {dtype}[1, 1, 3] = Constant(weight=slice(b, 2, 0, 3, 1))
        %a.7: {dtype}[2, 5, 3] = ElementWise(op=SUM) %a.5 %a.6
        %a.8: {dtype}[2, 5, 3] = Slice(start=(0, 0, 3), size=(2, 5, 3), stride=(1, 1, 1)) %a.1
        %a.9: {dtype}[1, 1, 3] = Constant(weight=slice(b, 2, 3, 6, 1))
        %a.10: {dtype}[2, 5, 3] = ElementWise(op=SUM) %a.8 %a.9
        %a.11: {dtype}[2, 5, 6] = Concatenation(axis=2) %a.7 %a.10
        %a.4: {dtype}[2, 5, 6] = Activation(function=RELU) %a.11
        output y = %a.4
        """,
    )
    assert (result.applied, result.refused) == (1, ())


@pytest.mark.parametrize(("columns", "reason"), [(7, "7 columns of 4 inputs"), (4, "4 columns of 4 inputs")])
def test_columns_without_halves_or_no_more_than_inputs_are_refused(columns, reason):
    text = (PRODUCT + ACTIVATION).format(dtype="float32", columns=columns)
    (refusal,) = check_pass(BiasHalves(), text, text).refused
    assert (str(refusal.place), refusal.reason) == ("a", reason)


READERS = {
    "an output": "output y = %a.3",
    "an activation and an output": "%a.4: float32[2, 5, 6] = Activation(function=RELU) %a.3\n output y = %a.4\n"
    " output z = %a.3",
    "rows in another order": "%a.4: float32[2, 6, 5] = Shuffle(first=(0, 2, 1)) %a.3\n output y = %a.4",
    "an activation and a softmax": "%a.4: float32[2, 5, 6] = Activation(function=RELU) %a.3\n"
    " %a.5: float32[2, 5, 6] = Softmax(axis=2) %a.3\n output y = %a.4\n output z = %a.5",
}


@pytest.mark.parametrize("readers", READERS)
def test_a_bias_that_is_not_before_an_activation_stays_whole(readers):
    lines = [*PRODUCT.strip().splitlines(), *READERS[readers].splitlines()]
    text = "\n".join(line.strip() for line in lines).format(dtype="float32", columns=6)
    result = check_pass(BiasHalves(), text, text)
    assert (result.applied, result.refused) == (0, ())


def test_what_is_added_to_rows_is_not_a_bias():
    text = (PRODUCT + ACTIVATION).format(dtype="float32", columns=6)
    text = text.replace("[1, 1, 6]", "[1, 5, 6]")
    assert check_pass(BiasHalves(), text, text).applied == 0
