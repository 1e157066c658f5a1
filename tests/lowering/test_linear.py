"""Matrix products and convolutions compute what PyTorch computes, from weights that stay as they are stored."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ditto.errors import UnsupportedFeature
from ditto.network.layers import Convolution, MatrixMultiply
from tests.support.layers import FLOATS
from tests.support.lowering import Row, check_dynamic, check_every_lowering_has_rows, check_rows, lowered, rows
from tests.support.programs import FunctionModule

aten = torch.ops.aten


def _randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


X, WEIGHT, BIAS = _randn(3, 2, 4), _randn(5, 4, seed=1), _randn(5, seed=2)
IMAGE, KERNEL = _randn(3, 4, 6, 8), _randn(5, 4, 2, 2, seed=1)
FRAMES, WINDOW = _randn(6, 3, 2, 4, 4), _randn(5, 3, 2, 4, 4, seed=1)

ROWS = {
    aten.linear.default: [
        *(Row(*(x.to(dtype) for x in (X, WEIGHT, BIAS))) for dtype in FLOATS),
        Row(X, WEIGHT),
        Row(X[:, 0], WEIGHT, BIAS),
        Row(X[:, None], WEIGHT, BIAS),
    ],
    aten.matmul.default: [
        *(Row(X.to(dtype), WEIGHT.to(dtype).t()) for dtype in FLOATS),
        Row(X, _randn(3, 4, 5)),
        Row(X[:, None], _randn(2, 4, 5)),
        Row(X[0], _randn(3, 4, 5), static=True),
    ],
    aten.bmm.default: [Row(X, _randn(3, 4, 5)), Row(X.half(), _randn(3, 4, 1).half())],
    aten.mm.default: [Row(X[:, 0], WEIGHT.t()), Row(X[:, 0].half(), WEIGHT.t().half())],
    aten.addmm.default: [
        *(Row(*(x.to(dtype) for x in (BIAS, X[:, 0], WEIGHT.t()))) for dtype in FLOATS),
        Row(BIAS, X[:, 0], WEIGHT.t(), beta=0.5, alpha=2),
        Row(torch.full((5,), float("nan")), X[:, 0], WEIGHT.t(), beta=0),
    ],
    aten.baddbmm.default: [
        Row(_randn(3, 2, 5), X, _randn(3, 4, 5)),
        Row(_randn(3, 1, 5), X, _randn(3, 4, 5), beta=1.0, alpha=0.25),
    ],
    aten.einsum.default: [
        *(Row("bhc,hkc->bhk", [X.to(dtype), _randn(2, 5, 4).to(dtype)]) for dtype in FLOATS),
        Row("bhwc,wkc->bhwk", [IMAGE, _randn(6, 5, 8)]),
        Row("bij, bkj -> kbi", [X, _randn(3, 5, 4)]),
        Row("ij,jk->ki", [WEIGHT, WEIGHT.t()], static=True),
        Row("bij,ckl->bijckl", [X, WEIGHT[None]]),
    ],
    aten.conv2d.default: [
        *(Row(*(x.to(dtype) for x in (IMAGE, KERNEL, BIAS)), [2, 2]) for dtype in FLOATS),
        Row(IMAGE, KERNEL),
        Row(IMAGE, _randn(5, 4, 3, 2), BIAS, [3, 2]),
        Row(IMAGE, KERNEL, BIAS, [1, 2], [0, 1], [2, 1]),
        Row(IMAGE, _randn(6, 2, 3, 3), None, [1, 1], [1, 1], [1, 1], 2),
        Row(IMAGE, KERNEL, None, [2], [1]),
    ],
    aten.conv3d.default: [
        *(Row(*(x.to(dtype) for x in (FRAMES, WINDOW, BIAS)), [2, 4, 4]) for dtype in FLOATS),
        Row(FRAMES, WINDOW),
    ],
    aten.conv2d.padding: [
        *(Row(*(x.to(dtype) for x in (IMAGE, KERNEL, BIAS)), [2, 2], "valid") for dtype in FLOATS),
        Row(IMAGE, KERNEL, None, [1], "valid", [2]),
    ],
}


def test_every_lowering_of_the_module_has_rows():
    check_every_lowering_has_rows(ROWS, "linear")


@pytest.mark.parametrize(("operator", "calls"), rows(ROWS))
def test_products_compute_what_torch_computes(operator, calls):
    check_rows(operator, calls)


class _Grouped(nn.Module):
    """Heads in groups, as attention written out has them: leading axes broadcast over a dynamic one."""

    def forward(self, x):
        heads = x.reshape(x.shape[0], 2, 2, 2)
        return heads @ heads[:, :1].transpose(-1, -2)


@pytest.mark.parametrize("module", [nn.Linear(4, 6), nn.Linear(4, 6, bias=False), _Grouped()], ids=repr)
def test_products_over_a_dynamic_axis(module):
    check_dynamic(module, {"x": X if isinstance(module, nn.Linear) else X.flatten(1)})


def test_a_linear_layer_multiplies_by_the_weight_as_it_is_stored():
    network = lowered(nn.Linear(4, 6, bias=False), {"x": X})
    assert [node.layer for node in network.nodes][1:] == [MatrixMultiply(transpose_y=True)]
    assert str(network.constants()[0].weight) == "reshape(weight, [1, 6, 4])"


@pytest.mark.parametrize(
    ("convolution", "wanted"),
    [
        (nn.Conv2d(4, 6, 2, stride=2), MatrixMultiply),
        (nn.Conv2d(4, 6, (3, 2), stride=(3, 2), bias=False), MatrixMultiply),
        (nn.Conv2d(4, 6, 2, stride=1), Convolution),
        (nn.Conv2d(4, 6, 2, stride=2, padding=1), Convolution),
        (nn.Conv2d(4, 4, 2, stride=2, groups=2), Convolution),
        (nn.Conv2d(4, 6, 4, stride=4), Convolution),  # patches would not cover the image
    ],
    ids=str,
)
def test_a_convolution_of_patches_that_do_not_overlap_is_a_product(convolution, wanted):
    check_dynamic(convolution, {"x": IMAGE})
    kinds = {type(node.layer) for node in lowered(convolution, {"x": IMAGE}).nodes}
    assert {MatrixMultiply, Convolution} & kinds == {wanted}


REFUSED = [
    (lambda x, y: torch.nn.functional.linear(x[0, 0], y), "a linear layer of a vector"),
    (lambda x, y: x @ y[0], "a matrix product with a vector"),
    (
        lambda x, y: torch.nn.functional.conv2d(x[:, None], y[None, None, 1:4, :3], padding="same"),
        "a convolution with padding 'same'",
    ),
]


@pytest.mark.parametrize(("function", "said"), REFUSED)
def test_what_has_no_layer_is_refused(function, said):
    with pytest.raises(UnsupportedFeature) as raised:
        lowered(function, {"x": X, "y": WEIGHT})
    assert raised.value.cause == said


@pytest.mark.parametrize("settings", [{"padding": 1}, {"groups": 2}, {}])
def test_a_convolution_over_time_is_one_of_whole_patches(settings):
    kernel = (1, 2, 2) if not settings else (2, 4, 4)
    convolution = nn.Conv3d(4, 4, kernel, **settings)
    with pytest.raises(UnsupportedFeature, match="a convolution over time and space"):
        lowered(convolution, {"x": _randn(3, 4, 2, 4, 4)})


@pytest.mark.parametrize("equation", ["bij->ij", "bij,bkl->bk", "bij,bjk,bkl->il", "bii,bij->bj", "bij,...j->bi"])
def test_other_sums_are_refused(equation):
    x = torch.ones(3, 3, 3)
    count = equation.split("->")[0].count(",") + 1
    module = FunctionModule(lambda *given: torch.ops.aten.einsum(equation, list(given)))
    with pytest.raises(UnsupportedFeature, match="the sum '"):
        lowered(module, {f"x{index}": x for index in range(count)})
