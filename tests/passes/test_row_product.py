"""A product of rows with a constant matrix is known as one, and nothing else is."""

from __future__ import annotations

import pytest

from ditto.network import symbol
from ditto.passes.row_product import RowProduct
from tests.support.passes import network_from

TEXT = """
    input %x: float32[batch, sequence, 4]
    input %y: float32[1, 6, 4]
    input %z: float32[batch, 4]
    %a.0: float32[1, 6, 4] = Constant(weight=w)
    %a.1: float32[2, 6, 4] = Constant(weight=v)
    %a.2: float32[1, 4, 6] = Constant(weight=u)
    %a.3: float32[6, 4] = Constant(weight=t)
    %a.4: float32[batch, sequence, 6] = {product}
    output y = %a.4
"""


def product_of(text, shape="batch, sequence, 6"):
    network = network_from(TEXT.format(product=text).replace("batch, sequence, 6]", f"{shape}]"))
    return RowProduct.of(network, network.nodes[-1])


def test_a_product_with_a_constant_matrix_has_its_sizes():
    product = product_of("MatrixMultiply(transpose_y=True) %x %a.0")
    assert (product.rows.name, product.matrix.name) == ("x", "a.0")
    assert (product.batch, product.length) == (symbol("batch"), symbol("sequence"))
    assert (product.inner, product.columns) == (4, 6)


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("MatrixMultiply(transpose_y=True) %x %y", "batch, sequence, 6"),
        ("MatrixMultiply %x %a.2", "batch, sequence, 6"),
        ("MatrixMultiply(transpose_y=True) %z %a.3", "batch, 6"),
        ("MatrixMultiply(transpose_y=True) %y %a.1", "2, 6, 6"),
        ("ElementWise(op=SUM) %x %x", "batch, sequence, 4"),
    ],
)
def test_others_are_none(text, shape):
    assert product_of(text, shape) is None
