"""Products of complex numbers become those of their parts; other uses of them are refused."""

from __future__ import annotations

import pytest
import torch

from ditto.errors import UnsupportedFeature
from ditto.rewrite.clean import clean
from ditto.rewrite.complex_numbers import replace_complex
from tests.support.programs import captured
from tests.support.rewriting import check_applies, check_misses

X = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0))
ANGLES = torch.rand(3, 4, 3, generator=torch.Generator().manual_seed(1)) * 6
NAMES = {"x": "batch", "angles": "batch"}


def _complex(x):
    return torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))


def _rope(x, angles):
    turned = _complex(x) * (torch.polar(torch.ones_like(angles), angles) * 1.5)
    return torch.view_as_real(turned).flatten(2)


def _of_moved(x, angles):
    lengths = torch.polar(angles + 1, angles)[:, None].transpose(1, 2)
    return torch.view_as_real(_complex(x).unsqueeze(2)[:, 1:] * lengths[:, 1:]).sum(-1)


def _real_factor_first(x, angles):
    return torch.view_as_real(angles * _complex(x))


@pytest.mark.parametrize("function", [_rope, _of_moved, _real_factor_first])
def test_a_product_is_that_of_the_parts(function):
    counts = {_rope: 5, _of_moved: 9, _real_factor_first: 3}
    program = check_applies(replace_complex, function, {"x": X, "angles": ANGLES}, counts[function], NAMES)
    values = [node.meta["val"] for node in program.graph.nodes if "val" in node.meta]
    assert not any(value.is_complex() for value in values if isinstance(value, torch.Tensor))


def test_real_numbers_are_left_alone():
    check_misses(replace_complex, lambda x: x * x.cos(), {"x": X})


@pytest.mark.parametrize(
    "function", [lambda x: torch.view_as_real(_complex(x) + 1), lambda x: torch.view_as_real(_complex(x).exp())]
)
def test_other_uses_are_refused(function):
    program = captured(function, {"x": X})
    clean(program)
    with pytest.raises(UnsupportedFeature, match="computes with complex numbers"):
        replace_complex(program)
