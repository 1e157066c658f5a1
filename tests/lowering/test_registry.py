"""One function lowers an operator, under the operator's own schema; none goes untested."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch

from ditto.lowering import lowers, table
from ditto.lowering.registry import _IGNORED, _TABLE, call

aten = torch.ops.aten


def _first_operators():
    """Each lowering function with the operator that it was registered for first."""
    first = {}
    for operator, function in table().items():
        first.setdefault(function, operator)
    return [pytest.param(function, operator, id=function.__name__) for function, operator in first.items()]


def test_every_module_of_lowerings_checks_that_each_has_rows():
    modules = {function.__module__.removeprefix("ditto.lowering.") for function in table().values()}
    for module in modules:
        tests = (Path(__file__).parent / f"test_{module}.py").read_text()
        assert f'check_every_lowering_has_rows(ROWS, "{module}")' in tests, module


@pytest.mark.parametrize(("function", "operator"), _first_operators())
def test_the_docstring_is_the_schema(function, operator):
    schema = str(operator._schema).removeprefix("aten::")
    assert " ".join((function.__doc__ or "").split()) == " ".join(schema.split())


@pytest.mark.parametrize("operator", table(), ids=str)
def test_what_the_schema_lets_out_the_function_lets_out(operator):
    parameters = list(inspect.signature(table()[operator]).parameters.values())[1:]
    arguments = [argument for argument in operator._schema.arguments if argument.name not in _IGNORED]
    for parameter, argument in zip(parameters, arguments, strict=True):
        # A further operator of a function may ask for what the first one lets out.
        assert parameter.default is not parameter.empty or not argument.has_default_value(), parameter.name


@pytest.fixture
def unchanged():
    """The table is as it was before the test."""
    before = dict(_TABLE)
    yield
    assert before == _TABLE


def _misnamed(net, x, approx="none"):
    """Names an argument otherwise."""


def _misordered(net, x, dim1, dim0):
    """Has the arguments in another order."""


def _short(net, x):
    """Lacks an argument."""


def _long(net, x, approximate="none", more=None):
    """Has an argument too many."""


REFUSED = [
    (_misnamed, aten.gelu.default, "^_misnamed: `approx` should be `approximate` as in aten::gelu"),
    (_misordered, aten.transpose.int, "^_misordered: `dim1` should be `dim0` as in aten::transpose.int"),
    (_short, aten.gelu.default, r"^_short takes \['x'\], aten::gelu.* has \['self', 'approximate'\]$"),
    (_long, aten.gelu.default, r"^_long takes \['x', 'approximate', 'more'\], aten::gelu"),
]


@pytest.mark.parametrize(("function", "operator", "said"), REFUSED)
@pytest.mark.usefixtures("unchanged")
def test_a_function_that_does_not_fit_the_schema_is_refused(function, operator, said):
    with pytest.raises(TypeError, match=said):
        lowers(operator)(function)


@pytest.mark.usefixtures("unchanged")
def test_a_second_registration_is_refused():
    with pytest.raises(TypeError, match=r"^aten.relu.default is lowered by relu already$"):
        lowers(aten.relu.default)(lambda net, anything: anything)


def test_tables_are_copies():
    mine = table()
    mine.clear()
    assert aten.relu.default in table()


def test_what_means_nothing_to_an_engine_is_not_handed_over():
    args, kwargs = (4, torch.int64), {"dtype": torch.int64, "device": "cpu", "pin_memory": False}
    assert call(aten.arange.default, lambda net, *a, **k: (net, a, k), "net", args[:1], kwargs) == (
        "net",
        (4,),
        {"dtype": torch.int64},
    )
    assert call(aten.embedding.default, lambda net, *a: a, None, ("table", "ids", 1, False), {}) == ("table", "ids")
