"""Layouts follow tokens through reshapes and broadcasts."""

from __future__ import annotations

import pytest

from ditto.network import dims, symbol
from ditto.rewrite.layout import broadcast, canonical, is_apart, is_named, names, plain, regrouped

BATCH, SEQUENCE = symbol("batch"), symbol("sequence")
ROWS = (("batch",), ("sequence",), (24,))


def _times(*sizes):
    return dims.product(sizes)


RESHAPES = {
    "the same": ((BATCH, SEQUENCE, 24), ROWS),
    "heads": ((BATCH, SEQUENCE, 4, 6), (("batch",), ("sequence",), (4,), (6,))),
    "flattened tokens": ((_times(BATCH, SEQUENCE), 24), (("batch", "sequence"), (24,))),
    "tokens by heads": ((_times(BATCH, SEQUENCE, 4), 6), (("batch", "sequence", 4), (6,))),
    "an axis of 1": ((BATCH, 1, SEQUENCE, 24, 1), (("batch",), (), ("sequence",), (24,), ())),
    "everything in one": ((_times(BATCH, SEQUENCE, 24),), (("batch", "sequence", 24),)),
    "tokens in the place of rows": ((SEQUENCE, BATCH, 24), None),
    "columns before tokens": ((BATCH, 24, SEQUENCE), None),
    "columns among tokens": ((BATCH, _times(SEQUENCE, 2), 12), (("batch",), ("sequence", 2), (12,))),
    "fewer columns": ((BATCH, SEQUENCE, 12), None),
    "more columns": ((BATCH, SEQUENCE, 48), None),
    "a token more": ((BATCH, dims.add(SEQUENCE, 1), 24), None),
    "no columns": ((BATCH, SEQUENCE, 0), None),
}


@pytest.mark.parametrize(("shape", "wanted"), RESHAPES.values(), ids=RESHAPES)
def test_reshapes_keep_named_dimensions_whole(shape, wanted):
    assert regrouped(ROWS, shape) == wanted


def test_reshapes_split_numbers_across_axes():
    assert regrouped(((6,), (4,)), (4, 6)) == ((4,), (6,))
    assert regrouped((("batch", 6), (4,)), (BATCH, 24)) == (("batch",), (24,))
    assert regrouped((("batch", 6), (4,)), (_times(BATCH, 3), 8)) == (("batch", 3), (8,))
    assert regrouped(((2,), ("batch",)), (_times(BATCH, 2),)) == ((2, "batch"),)
    assert regrouped(((2,), ("batch",)), (BATCH, 2)) is None


def test_broadcasts_meet_token_by_token():
    assert broadcast([ROWS, ((24,),)]) == ROWS
    assert broadcast([ROWS, (("sequence",), ())]) == ROWS
    assert broadcast([ROWS], [((), ("sequence",), (24,))]) == ROWS
    assert broadcast([(("sequence",), ("batch",), (24,)), ROWS]) is None
    assert broadcast([(("batch",), ("sequence",), ()), (("batch",), (), ("sequence",))]) is None
    assert broadcast([]) == ()


def test_plain_layouts_name_what_is_named():
    shape = (3, BATCH, _times(SEQUENCE, BATCH, 2))
    assert plain(shape) == ((3,), ("batch",), ("batch", "sequence"))
    assert names(plain(shape)) == ["batch", "batch", "sequence"]
    assert not is_apart(plain(shape)) and is_apart(ROWS)
    assert [is_named(axis) for axis in plain(shape)] == [False, True, True]
    assert canonical(((1,), (2, 3, "batch", 1, 4, 2))) == ((), (6, "batch", 8))
