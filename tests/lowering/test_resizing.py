"""Padding, interpolation and pooling of images compute what PyTorch computes."""

from __future__ import annotations

import pytest
import torch

from ditto.errors import UnsupportedFeature
from tests.support.layers import FLOATS
from tests.support.lowering import Row, check_every_lowering_has_rows, check_rows, lowered, rows
from tests.support.programs import FunctionModule

aten = torch.ops.aten


def _randn(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


LINE, IMAGE = _randn(3, 2, 5), _randn(3, 2, 4, 6)
_SIZES = ([4, 6], [8, 12], [7, 6], [4, 3], [3, 9])


def _interpolated(dtype=torch.float32):
    return [Row(IMAGE.to(dtype), size, aligned, None) for size in _SIZES for aligned in (False, True)]


ROWS = {
    aten.pad.default: [
        *(Row(IMAGE.to(dtype), [0, 0, 0, 2, 0, 1]) for dtype in FLOATS),
        Row(LINE, [1, 2]),
        Row(LINE, [0, 0]),
        Row(IMAGE, [1, 0, 0, 3], "constant", -7.0),
        Row(torch.arange(12).reshape(3, 4), [2, 1]),
    ],
    aten.upsample_linear1d.vec: [
        Row(LINE, size, aligned, None) for size in ([5], [9], [3], [1]) for aligned in (False, True)
    ],
    aten.upsample_bilinear2d.vec: _interpolated(),
    aten.upsample_bicubic2d.vec: _interpolated(),
    aten._upsample_bicubic2d_aa.vec: _interpolated(),
    aten.adaptive_avg_pool2d.default: [Row(IMAGE, size) for size in ([2, 3], [4, 6], [1, 1], [3, 4])],
}


def test_every_lowering_of_the_module_has_rows():
    check_every_lowering_has_rows(ROWS, "resizing")


@pytest.mark.parametrize(("operator", "calls"), rows(ROWS))
def test_images_are_resized_as_in_torch(operator, calls):
    check_rows(operator, calls)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda x: aten.pad(x, [1, 1, 1, 1], "reflect"), "in the mode 'reflect'"),
        (lambda x: aten.pad(x, [-1, 1]), "padding by"),
        (lambda x: aten.upsample_bilinear2d.vec(x, None, False, [2.0, 2.0]), "interpolation by a factor"),
    ],
)
def test_other_forms_are_refused(function, said):
    with pytest.raises(UnsupportedFeature, match=said):
        lowered(FunctionModule(function), {"x": IMAGE})


def test_images_of_dynamic_size_are_refused():
    module = FunctionModule(lambda x: aten.upsample_bilinear2d.vec(x.permute(1, 2, 0, 3), [2, 2], False, None))
    with pytest.raises(UnsupportedFeature, match="an image of dynamic size is resized"):
        lowered(module, {"x": IMAGE}, {"x": "batch"})
