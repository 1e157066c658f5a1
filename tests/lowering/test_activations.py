"""Activations compute what PyTorch computes, and TensorRT agrees on their shapes and dtypes."""

from __future__ import annotations

import pytest
import torch

from ditto.errors import ShapeError, UnsupportedFeature
from tests.support.layers import FLOATS
from tests.support.lowering import Row, check_every_lowering_has_rows, check_rows, lowered, rows

aten = torch.ops.aten

_X = 2 * torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
_EACH = [Row(_X.to(dtype)) for dtype in FLOATS]

ROWS = {
    aten.relu.default: _EACH,
    aten.sigmoid.default: _EACH,
    aten.tanh.default: _EACH,
    aten.silu.default: _EACH,
    aten.softplus.default: [*_EACH, Row(20 * _X), Row(_X, 0.5), Row(_X, 2.0, 4.0)],
    aten.log_sigmoid.default: [*_EACH, Row(50 * _X)],
    aten.gelu.default: [*_EACH, *(Row(row.args[0], approximate=mode) for row in _EACH for mode in ("none", "tanh"))],
    aten.softmax.int: [
        *(Row(row.args[0], axis) for row in _EACH for axis in (-1, 1)),
        Row(_X, 0, static=True),
        *(Row(_X.half(), -1, dtype) for dtype in FLOATS),
        Row(torch.arange(15).reshape(3, 5), 1, torch.float32),
    ],
}


def test_every_lowering_of_the_module_has_rows():
    check_every_lowering_has_rows(ROWS, "activations")


@pytest.mark.parametrize(("operator", "calls"), rows(ROWS))
def test_activations_compute_what_torch_computes(operator, calls):
    check_rows(operator, calls)


def test_gelu_keeps_its_approximation():
    texts = []
    for mode in ("none", "tanh"):
        network = lowered(lambda x, mode=mode: torch.nn.functional.gelu(x, approximate=mode), {"x": _X})
        texts.append(network.nodes[-1].layer.function)
    assert texts == ["GELU_ERF", "GELU_TANH"]


def test_gelu_with_an_unknown_approximation_is_refused():
    from ditto.lowering.activations import gelu

    with pytest.raises(UnsupportedFeature, match="^GELU with approximation 'sigmoid'$"):
        gelu(None, None, "sigmoid")


def test_integers_are_refused():
    with pytest.raises(ShapeError, match="needs a floating dtype"):
        lowered(torch.relu, {"x": torch.arange(4)})
