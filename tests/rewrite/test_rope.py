"""Rotary embedding is found where tables by position turn the halves of a head, and only there."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import embedding

from ditto.rewrite.rope import ROPE_OF_HALVES
from tests.support.layers import FLOATS
from tests.support.programs import FunctionModule, operators
from tests.support.rewriting import check_applies, check_misses

HALF, POSITIONS = 4, 9
X = torch.randn(2, 3, 5, 2 * HALF, generator=torch.Generator().manual_seed(0))
IDS = torch.tensor([[0, 3, 1, 8, 2], [4, 5, 6, 7, 0]])


def _tables(dtype=torch.float32, repeat=True):
    angles = torch.arange(POSITIONS)[:, None] * torch.logspace(0, -2, HALF)
    other = angles if repeat else angles + 0.01
    both = torch.cat((angles, other), -1)
    return {"cos": both.cos().to(dtype), "sin": both.sin().to(dtype)}


def _halves_turned(x, half=HALF):
    return torch.cat((-x[..., half:], x[..., :half]), dim=-1)


def _rows(self, ids):
    return embedding(ids, self.cos).unsqueeze(1), embedding(ids, self.sin).unsqueeze(1)


def _as_written(self, x, ids):
    c, s = _rows(self, ids)
    return x * c + _halves_turned(x) * s


def _swapped(self, x, ids):
    c, s = _rows(self, ids)
    return s * _halves_turned(x) + c * x


def _axes_from_the_end(self, x, ids):
    c, s = (embedding(ids, table).unsqueeze(-3) for table in (self.cos, self.sin))
    return x * c + torch.cat((-x[:, :, :, HALF:], x[:, :, :, :HALF]), dim=3) * s


FORMS = [_as_written, _swapped, _axes_from_the_end]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rows", [1, 2])
def test_rope_is_found(form, dtype, rows):
    module = FunctionModule(form, buffers=_tables(dtype))
    names = {"x": "batch . sequence", "ids": "batch sequence" if rows == 2 else ". sequence"}
    program = check_applies(ROPE_OF_HALVES, module, {"x": X.to(dtype), "ids": IDS[:rows]}, names=names)
    assert operators(program)[-1] == torch.ops.ditto.rope.default
    assert program.outputs[0].args[4] is False


def test_queries_and_keys_share_their_rows():
    def both(self, x, ids):
        return _as_written(self, x, ids) * _swapped(self, x[:, :1] + 1, ids)

    check_applies(ROPE_OF_HALVES, FunctionModule(both, buffers=_tables()), {"x": X, "ids": IDS}, times=2)


def test_a_part_of_a_head_is_turned_alone():
    def partial(self, x, ids):
        return torch.cat((_as_written(self, x[..., : 2 * HALF], ids), x[..., 2 * HALF :]), -1)

    wide = torch.cat((X, X[..., :3]), -1)
    check_applies(ROPE_OF_HALVES, FunctionModule(partial, buffers=_tables()), {"x": wide, "ids": IDS})


def _interleaved(self, x, ids):
    c, s = _rows(self, ids)
    return x * c + torch.stack((-x[..., 1::2], x[..., ::2]), -1).flatten(-2) * s


def _minus(self, x, ids):
    c, s = _rows(self, ids)
    return x * c - _halves_turned(x) * s


def _other_half(self, x, ids):
    c, s = _rows(self, ids)
    return x * c + torch.cat((x[..., HALF:], -x[..., :HALF]), dim=-1) * s


def _unequal_parts(self, x, ids):
    c, s = _rows(self, ids)
    return x * c + _halves_turned(x, HALF - 1) * s


def _other_axis(self, x, ids):
    c, s = _rows(self, ids)
    return x * c + torch.cat((-x[:, :, 2:], x[:, :, :2]), dim=2) * s


def _turned_other(self, x, ids):
    c, s = _rows(self, ids)
    return x * c + _halves_turned(x + 1) * s


def _other_positions(self, x, ids):
    (c, _), (_, s) = _rows(self, ids), _rows(self, ids + 1 - 1)
    return x * c + _halves_turned(x) * s


def _per_head(self, x, ids):
    c, s = (embedding(ids[:, :3], table).unsqueeze(2) for table in (self.cos, self.sin))
    return x * c + _halves_turned(x) * s


NEAR_MISSES = [
    _interleaved,
    _minus,
    _other_half,
    _unequal_parts,
    _other_axis,
    _turned_other,
    _other_positions,
    _per_head,
]


@pytest.mark.parametrize("function", NEAR_MISSES)
def test_what_is_one_detail_away_stays(function):
    check_misses(ROPE_OF_HALVES, FunctionModule(function, buffers=_tables()), {"x": X, "ids": IDS})


@pytest.mark.parametrize("table", ["cos", "sin"])
def test_tables_whose_halves_differ_stay(table):
    tables = {**_tables(), table: _tables(repeat=False)[table]}
    check_misses(ROPE_OF_HALVES, FunctionModule(_as_written, buffers=tables), {"x": X, "ids": IDS})


def test_tables_that_are_parameters_or_computed_stay():
    check_misses(ROPE_OF_HALVES, FunctionModule(_as_written, _tables()), {"x": X, "ids": IDS})

    def computed(self, x, ids):
        c, s = (embedding(ids, table * 1.5).unsqueeze(1) for table in (self.cos, self.sin))
        return x * c + _halves_turned(x) * s

    check_misses(ROPE_OF_HALVES, FunctionModule(computed, buffers=_tables()), {"x": X, "ids": IDS})


def test_tables_of_another_dtype_stay():
    module = FunctionModule(_as_written, buffers=_tables(torch.float32))
    check_misses(ROPE_OF_HALVES, module, {"x": X.half(), "ids": IDS})


def test_rows_that_repeat_a_single_head_stay():
    module = FunctionModule(_as_written, buffers=_tables())
    check_misses(ROPE_OF_HALVES, module, {"x": X[:1], "ids": IDS})
