"""Sizes are polynomials, and their arithmetic is that of numbers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ditto.errors import ShapeError
from ditto.network.dims import DimExpr, add, divide, evaluate, multiply, parse, product, symbol

SAME_EVERY_RUN = settings(deadline=None, derandomize=True, database=None)
A, B = symbol("a"), symbol("b")
NUMBERS = st.integers(-9, 9)
SIZES = {"a": 5, "b": 7, "c": 11}
DIMS = st.recursive(
    st.one_of(NUMBERS, st.sampled_from([symbol(name) for name in SIZES])),
    lambda inner: st.builds(add, inner, inner) | st.builds(multiply, inner, inner),
    max_leaves=6,
)
SINGLE_TERMS = st.builds(
    lambda factor, names: product([factor, *map(symbol, names)]),
    NUMBERS.filter(bool),
    st.lists(st.sampled_from(list(SIZES)), max_size=2),
)


@given(DIMS, DIMS)
@SAME_EVERY_RUN
def test_sums_and_products_are_those_of_the_numbers(left, right):
    assert evaluate(add(left, right), SIZES) == evaluate(left, SIZES) + evaluate(right, SIZES)
    assert evaluate(multiply(left, right), SIZES) == evaluate(left, SIZES) * evaluate(right, SIZES)


@given(DIMS, DIMS, DIMS)
@SAME_EVERY_RUN
def test_equal_polynomials_are_equal_objects(x, y, z):
    assert add(x, y) == add(y, x)
    assert multiply(x, add(y, z)) == add(multiply(x, y), multiply(x, z))
    assert add(x, multiply(-1, x)) == 0


@given(DIMS)
@SAME_EVERY_RUN
def test_the_text_of_a_size_reads_back_as_the_size(dim):
    assert parse(str(dim)) == dim


@given(DIMS, SINGLE_TERMS)
@SAME_EVERY_RUN
def test_division_undoes_multiplication(dim, divisor):
    if dim != 0:
        assert divide(multiply(dim, divisor), divisor) == dim


@pytest.mark.parametrize(
    ("left", "right", "wanted"),
    [
        (12, 4, 3),
        (12, 5, None),
        (12, 0, None),
        (multiply(6, A), 3, multiply(2, A)),
        (multiply(6, A), 4, None),
        (A, B, None),
        (add(A, 1), A, None),
        (add(multiply(A, B), multiply(2, A)), A, add(B, 2)),
        (multiply(A, A), A, A),
        (add(A, 1), add(A, 1), 1),
        (add(A, B), add(B, 1), None),
    ],
)
def test_division_is_exact_or_refused(left, right, wanted):
    assert divide(left, right) == wanted


@pytest.mark.parametrize(
    ("dim", "text"),
    [
        (add(multiply(A, B), 1), "a*b + 1"),
        (add(multiply(-1, A), B), "-1*a + b"),
        (add(multiply(2, A), multiply(-3, B)), "2*a - 3*b"),
        (add(A, -4), "a - 4"),
        (7, "7"),
    ],
)
def test_sizes_print_in_one_order(dim, text):
    assert str(dim) == text


@pytest.mark.parametrize(("text", "wanted"), [("-a", multiply(-1, A)), ("b + a*2", add(multiply(2, A), B)), ("-3", -3)])
def test_sums_of_products_are_read_in_any_order(text, wanted):
    assert parse(text) == wanted


@pytest.mark.parametrize("text", ["", "a b", "a +", "2a", "a/2", "(a)"])
def test_other_texts_are_no_sizes(text):
    with pytest.raises(ShapeError) as error:
        parse(text)
    assert error.value.cause == f"{text!r} is not a dimension"


def test_a_size_knows_the_names_it_depends_on():
    names = add(multiply(A, B), multiply(-1, B)).names  # type: ignore[union-attr]
    assert names == {"a", "b"}
    assert not isinstance(add(A, multiply(-1, A)), DimExpr)
    assert product([]) == 1


def test_a_name_without_a_size_is_named():
    with pytest.raises(ShapeError) as error:
        evaluate(add(A, B), {"a": 3})
    assert error.value.cause == "the size of dimension `b` is not known"
