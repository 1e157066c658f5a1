"""Matrix products against sums over the inner axis."""

from __future__ import annotations

import pytest
import torch

from ditto.bindings import load_native
from ditto.network import Spec
from ditto.network.layers import MatrixMultiply
from tests.support.layers import FLOATS, check_layer, emitted, network_of
from tests.support.networks import refusal


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("transpose_x", [True, False])
@pytest.mark.parametrize("transpose_y", [True, False])
@pytest.mark.parametrize(
    ("batch_x", "batch_y"), [((), ()), ((2,), (1,)), ((1, 3), (2, 1)), ((2, 3), (1, 3)), ((2, 3), (2, 3))]
)
def test_products_sum_over_the_inner_axis_and_broadcast(batch_x, batch_y, transpose_x, transpose_y, dtype):
    x, y = (torch.randn(*batch_x, 4, 5) / 2).to(dtype), (torch.randn(*batch_y, 5, 6) / 2).to(dtype)
    wanted = (x.double().unsqueeze(-1) * y.double().unsqueeze(-3)).sum(-2).to(dtype)
    x, y = x.mT.contiguous() if transpose_x else x, y.mT.contiguous() if transpose_y else y
    dynamic = {len(batch_x) + transpose_x: "rows"}
    check_layer(MatrixMultiply(transpose_x, transpose_y), [x, y], wanted, dynamic)


@pytest.mark.parametrize(
    ("dtype", "summed_in"), [(torch.float16, "FLOAT"), (torch.bfloat16, "BF16"), (torch.float32, "FLOAT")]
)
def test_tensorrt_is_told_to_sum_float16_in_float32(dtype, summed_in):
    definition = emitted(network_of(MatrixMultiply(), [Spec((2, 3), dtype), Spec((3, 4), dtype)])).definition
    layers = [definition.get_layer(index) for index in range(definition.num_layers)]
    (product,) = [
        layer for layer in layers if layer.type == load_native("tensorrt_rtx").module.LayerType.MATRIX_MULTIPLY
    ]
    told = [product.get_input(0).dtype, product.get_input(1).dtype, product.get_output(0).dtype]
    assert [found.name for found in told] == [summed_in] * 3
    assert definition.get_output(0).dtype == definition.get_input(0).dtype


def test_a_named_batch_stays_named():
    check_layer(MatrixMultiply(), [torch.zeros(2, 3, 4), torch.zeros(1, 4, 5)], torch.zeros(2, 3, 5), {0: "batch"})


@pytest.mark.parametrize(
    ("layer", "specs", "message"),
    [
        (
            MatrixMultiply(),
            ["float32[2, 3]", "float16[3, 2]"],
            "needs equal dtypes, got float32[2, 3] and float16[3, 2]",
        ),
        (MatrixMultiply(), ["int32[2, 3]", "int32[3, 2]"], "needs a floating dtype, got int32[2, 3]"),
        (
            MatrixMultiply(),
            ["float32[3]", "float32[3]"],
            "needs equal ranks of at least 2, got float32[3] and float32[3]",
        ),
        (
            MatrixMultiply(),
            ["float32[1, 2, 3]", "float32[3, 2]"],
            "needs equal ranks of at least 2, got float32[1, 2, 3] and float32[3, 2]",
        ),
        (
            MatrixMultiply(),
            ["float32[2, 3]", "float32[2, 3]"],
            "inner sizes 3 and 2 differ in float32[2, 3] @ float32[2, 3]",
        ),
        (
            MatrixMultiply(True, True),
            ["float32[2, 3]", "float32[3, 4]"],
            "inner sizes 2 and 4 differ in float32[2, 3] @ float32[3, 4]",
        ),
        (
            MatrixMultiply(),
            ["float32[2, batch]", "float32[3, 4]"],
            "inner sizes batch and 3 differ in float32[2, batch] @ float32[3, 4]",
        ),
        (MatrixMultiply(), ["float32[2, 2, 3]", "float32[3, 3, 4]"], "cannot broadcast [2] with [3]"),
    ],
)
def test_products_refuse_what_does_not_fit(layer, specs, message):
    assert refusal(layer, *specs) == message
