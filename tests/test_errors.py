"""Errors say cause, place and remedy, and carry the command line's exit code."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from ditto import errors
from ditto.errors import DittoError, Place, UnsupportedOperator, at

CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, DittoError)]


def test_an_error_reads_as_cause_place_and_remedy():
    error = DittoError("it broke", where=Place("model.layers.0", "modeling_llama.py:104"), remedy="mend it")
    assert str(error) == "it broke\nat: model.layers.0 (modeling_llama.py:104)\nhint: mend it"
    assert str(DittoError("it broke")) == "it broke"


def test_a_place_is_filled_in_once():
    with pytest.raises(DittoError) as caught, at("outer"), at("inner"):
        raise DittoError("it broke")
    assert caught.value.where == "inner"


def test_an_unsupported_operator_names_its_kin_and_the_others():
    places = [Place("m", "f.py:1"), Place("n", "f.py:2")]
    uses = {"aten.cumsum.default": places, "aten.x": [Place("m", "f.py:3")]}
    error = UnsupportedOperator(uses, ["aten.cumsum.out", "aten.add"])
    assert str(error) == (
        "`aten.cumsum.default` has no lowering; also without one: aten.x\n"
        "at: m (f.py:1)\n"
        "hint: register one with `@lowers(aten.cumsum.default)` (known: aten.cumsum.out)"
    )


def test_the_tree_of_errors_is_drawn_as_it_is():
    drawn = errors.__doc__ or ""
    for cls in CLASSES:
        assert cls.__name__ in drawn
        if cls.__subclasses__() == [] and cls.__bases__ == (DittoError,):
            (code,) = re.findall(rf"{cls.__name__} +(\d)", drawn)
            assert cls.exit_code == int(code)


def test_every_error_is_explained_in_the_docs():
    text = (Path(__file__).parent.parent / "docs" / "errors.md").read_text()
    for cls in CLASSES:
        assert f"`{cls.__name__}`" in text, f"docs/errors.md says nothing of {cls.__name__}"
