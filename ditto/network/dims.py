"""Dimensions of tensors: integers, or polynomials in named dimensions such as `batch*sequence + 1`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Union

from attrs import frozen
from typing_extensions import override

from ditto.errors import ShapeError

_Monomial = tuple[str, ...]


@frozen
class DimExpr:
    """A polynomial with integer coefficients in named dimensions; never a plain integer.

    Args:
        terms: (sorted names, coefficient) pairs in canonical order; use `symbol` and the functions of this module
            rather than this constructor.
    """

    terms: tuple[tuple[_Monomial, int], ...]

    @property
    def names(self) -> frozenset[str]:
        """The named dimensions that occur in the polynomial."""
        return frozenset(name for monomial, _ in self.terms for name in monomial)

    @override
    def __str__(self) -> str:
        parts: list[str] = []
        for monomial, factor in self.terms:
            factors = ([str(factor)] if factor != 1 or not monomial else []) + list(monomial)
            parts.append("*".join(factors))
        return " + ".join(parts).replace("+ -", "- ")


Dim = Union[int, DimExpr]


def symbol(name: str) -> DimExpr:
    """The named dimension `name`."""
    return DimExpr((((name,), 1),))


def _terms(dim: Dim) -> dict[_Monomial, int]:
    return {(): dim} if isinstance(dim, int) else dict(dim.terms)


def _dim(terms: Mapping[_Monomial, int]) -> Dim:
    kept = {monomial: factor for monomial, factor in terms.items() if factor}
    if not kept:
        return 0
    if set(kept) == {()}:
        return kept[()]
    return DimExpr(tuple(sorted(kept.items(), key=lambda term: (-len(term[0]), term[0]))))


def add(left: Dim, right: Dim) -> Dim:
    """left + right."""
    terms = _terms(left)
    for monomial, factor in _terms(right).items():
        terms[monomial] = terms.get(monomial, 0) + factor
    return _dim(terms)


def multiply(left: Dim, right: Dim) -> Dim:
    """left * right."""
    terms: dict[_Monomial, int] = {}
    for names_l, factor_l in _terms(left).items():
        for names_r, factor_r in _terms(right).items():
            monomial = tuple(sorted(names_l + names_r))
            terms[monomial] = terms.get(monomial, 0) + factor_l * factor_r
    return _dim(terms)


def product(dims: Iterable[Dim]) -> Dim:
    """The product of all dimensions; 1 if there are none."""
    result: Dim = 1
    for dim in dims:
        result = multiply(result, dim)
    return result


def divide(left: Dim, right: Dim) -> Dim | None:
    """left / right if the division is exact and `right` is an integer or a single term, else None."""
    if left == right:
        return 1
    divisor = list(_terms(right).items())
    if len(divisor) != 1 or divisor[0][1] == 0:
        return None
    names_r, factor_r = divisor[0]
    terms: dict[_Monomial, int] = {}
    for names_l, factor_l in _terms(left).items():
        rest = list(names_l)
        for name in names_r:
            if name not in rest:
                return None
            rest.remove(name)
        if factor_l % factor_r:
            return None
        terms[tuple(rest)] = factor_l // factor_r
    return _dim(terms)


def evaluate(dim: Dim, sizes: Mapping[str, int]) -> int:
    """The integer value of `dim` for given sizes of the named dimensions.

    Raises:
        ShapeError: the size of a named dimension is missing.
    """
    total = 0
    for monomial, factor in _terms(dim).items():
        value = factor
        for name in monomial:
            if name not in sizes:
                raise ShapeError(f"the size of dimension `{name}` is not known")
            value *= sizes[name]
        total += value
    return total


def parse(text: str) -> Dim:
    """Parse the output of `str`: sums of products of names and integers.

    Raises:
        ShapeError: the text has another form.
    """
    total: Dim = 0
    for part in text.replace("- ", "+ -").split("+"):
        term: Dim = 1
        for piece in part.strip().split("*"):
            factor = piece.strip()
            if re.fullmatch(r"-?\d+", factor):
                term = multiply(term, int(factor))
            elif factor.removeprefix("-").isidentifier():
                term = multiply(term, symbol(factor.removeprefix("-")))
                term = multiply(term, -1) if factor.startswith("-") else term
            else:
                raise ShapeError(f"{text!r} is not a dimension")
        total = add(total, term)
    return total
