"""Expressions of the tables, and what is said when one does not hold."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from attrs import evolve, field, frozen


class Undefined(Exception):
    """An expression asks for a key that is not there or has the wrong type: another row says so."""


@frozen
class Violation:
    """A row of the tables that a tree breaks.

    Args:
        where: file, and what in it.
        problem: what is wrong there.
        source: section of the contract, and whether the contract only infers it.
    """

    where: str
    problem: str
    source: str

    def __str__(self) -> str:
        return f"{self.where} {self.problem} [{self.source}]"


def violation(where: str, problem: str, row: Mapping[str, Any]) -> Violation:
    """A violation of a row."""
    return Violation(where, problem, f"{row['source']}{', INFERRED' if row.get('inferred') else ''}")


class Section:
    """A part of a config.json in an expression: `build.max_seq_len`, with the readers' defaults for absent keys."""

    def __init__(self, data: Any, defaults: Mapping[str, Any], path: str, scope: Scope) -> None:
        self._data, self._defaults, self._path, self._scope = data, defaults, path, scope

    def __getattr__(self, name: str) -> Any:
        path = f"{self._path}.{name}"
        if isinstance(self._data, dict) and name in self._data:
            value = self._data[name]
            return Section(value, self._defaults, path, self._scope) if isinstance(value, dict) else value
        if path not in self._defaults:
            raise Undefined(path)
        default = self._defaults[path]
        is_expression = isinstance(default, str) and default.startswith("=")
        return self._scope.evaluate(default[1:]) if is_expression else default

    def __contains__(self, name: str) -> bool:
        return isinstance(self._data, dict) and name in self._data


_FUNCTIONS = {
    "close": lambda x, y: math.isclose(x, y, rel_tol=1e-5),
    "half": lambda size: (size + 1) // 2,
    "len": len,
    "max": max,
    "min": min,
    "set": set,
    "up": lambda size, unit: -(-size // unit),
}


@frozen
class Scope(Mapping[str, Any]):
    """What names in expressions mean.

    Args:
        values: by name.
        names: names that stand for expressions.
        strict: what cannot be told is an error; else it is left to the row of what is missing.
    """

    values: Mapping[str, Any]
    names: Mapping[str, str] = field(factory=dict)
    strict: bool = False

    def __getitem__(self, name: str) -> Any:
        if name in self.values:
            return self.values[name]
        if name in self.names:
            return self.evaluate(self.names[name])
        return _FUNCTIONS[name]

    def __iter__(self) -> Iterator[str]:
        return iter({*self.values, *self.names, *_FUNCTIONS})

    def __len__(self) -> int:
        return len(set(self))

    def having(self, names: Mapping[str, str] | None = None, **values: Any) -> Scope:
        """The scope with more in it."""
        return evolve(self, values={**self.values, **values}, names={**self.names, **(names or {})})

    def evaluate(self, expression: str) -> Any:
        """The value of an expression.

        Raises:
            Undefined: it asks for something that the tree does not say, or not in the right type.
        """
        try:
            return eval(compile(expression, expression, "eval"), {"__builtins__": {}}, self)  # our own tables
        except (TypeError, AttributeError, IndexError, ZeroDivisionError) as error:
            raise Undefined(f"{expression}: {error}") from error

    def holds(self, expression: str) -> bool:
        """Whether a condition holds; one that cannot be told does not, unless `strict`."""
        try:
            return bool(self.evaluate(expression))
        except Undefined:
            if self.strict:
                raise
            return False

    def breaks(self, expression: str) -> bool:
        """Whether a test fails; one that cannot be told does not, unless `strict`."""
        try:
            return not self.evaluate(expression)
        except Undefined:
            if self.strict:
                raise
            return False

    def size(self, entry: Any) -> Any:
        """A table's entry as a value: `=expression`, or the entry itself."""
        return self.evaluate(entry[1:]) if isinstance(entry, str) and entry.startswith("=") else entry
