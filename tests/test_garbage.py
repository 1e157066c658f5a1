"""Inside, nothing is collected; afterwards Python collects if it did before."""

from __future__ import annotations

import gc

import pytest

from ditto.garbage import without_collection


@pytest.mark.parametrize("before", [True, False])
def test_what_was_found_comes_back_even_after_an_error(before):
    try:
        (gc.enable if before else gc.disable)()
        with pytest.raises(ValueError, match="inside"), without_collection(), without_collection():
            assert not gc.isenabled()
            raise ValueError("inside")
        assert gc.isenabled() == before
    finally:
        gc.enable()
