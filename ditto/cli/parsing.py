"""Parsing of options with several values together with positional arguments."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from typing_extensions import override


class _RefusedError(Exception):
    """A command line that argparse cannot parse."""


class Parser(argparse.ArgumentParser):
    """Command parser whose multi-value options leave the positional argument.

    argparse assigns all following values to an option with several values: in `--prompt TEXT OUT`, also OUT. If such a
    command line is invalid, the last value of an option is tried as the positional argument.
    """

    _trying = False

    @override
    def error(self, message: str) -> NoReturn:
        if self._trying:
            raise _RefusedError(message)
        super().error(message)

    @override
    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        given = list(args or ())
        if self._understands(given):
            return super().parse_known_args(given, namespace)
        moved = {given[at]: [given[at], *given[:at], *given[at + 1 :]] for at in _value_ends(given)}
        moved = {word: line for word, line in moved.items() if self._understands(line)}
        if len(moved) > 1:  # an engine tree or a checkpoint is a directory; prompts and images are not
            directories = [word for word in moved if _is_directory(word)]
            if len(directories) != 1:
                self.error(f"which of these is the argument without a name: {', '.join(moved)}? give it first")
            moved = {directories[0]: moved[directories[0]]}
        return super().parse_known_args(next(iter(moved.values()), given), namespace)

    def _understands(self, args: Sequence[str]) -> bool:
        self._trying = True
        try:
            return not super().parse_known_args(args)[1]
        except _RefusedError:
            return False
        finally:
            self._trying = False


def _value_ends(args: Sequence[str]) -> list[int]:
    """Indices at which values end: before an option, or at the end."""
    after = [*args[1:], "-"]
    return [at for at, word in enumerate(args) if not word.startswith("-") and after[at].startswith("-")]


def _is_directory(word: str) -> bool:
    try:
        return Path(word).is_dir()
    except (OSError, ValueError):  # a prompt may exceed the length limit of file names
        return False
