"""Everything Ditto raises on purpose.

    DittoError                     cause, where, remedy; `exit_code` of the command line
    ├── ConfigError            2   a setting, an argument or a seed-style configuration that cannot be honoured
    ├── CheckpointError        2   a checkpoint folder that is missing, incomplete or inconsistent
    ├── PromptError            2   a prompt or a picture that the engines cannot take
    ├── OutputError            2   an output folder that cannot be written
    ├── TreeError              2   an engine tree that is missing, incomplete or changed since it was built
    ├── MissingLibraryError    2   a library this machine lacks, with the pip line that brings it
    ├── DeviceError            2   a GPU that is missing, does not fit the tree, or has too little memory
    ├── RoomError              2   more disk or memory than this machine has to give
    ├── ModelError             1   the model does something that Ditto cannot turn into an engine
    │   ├── UnsupportedOperator
    │   └── UnsupportedFact
    ├── ShapeError             1   shapes or dtypes that do not fit together while a network is described
    └── BuildError             1   TensorRT refused the network or the build, or the process that compiled was killed

Exit code 2 is for what the caller can put right on the command line, 1 for a failure while working.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches

from attrs import frozen
from typing_extensions import override


@frozen
class Place:
    """Where in the user's model something happened: the module's path and the line of its own source."""

    module: str = ""
    source: str = ""

    @override
    def __str__(self) -> str:
        if self.module and self.source:
            return f"{self.module} ({self.source})"
        return self.module or self.source


class DittoError(Exception):
    """What went wrong (`cause`), where in the user's model or files (`where`), and what to do (`remedy`)."""

    exit_code = 1

    def __init__(self, cause: str, where: Place | str | None = None, remedy: str | None = None) -> None:
        super().__init__(cause)
        self.cause = cause
        self.where = where
        self.remedy = remedy

    @override
    def __str__(self) -> str:
        lines = [self.cause]
        if self.where is not None and str(self.where):
            lines.append(f"at: {self.where}")
        if self.remedy:
            lines.append(f"hint: {self.remedy}")
        return "\n".join(lines)


class ConfigError(DittoError):
    """A setting, an argument or a configuration object that cannot be honoured."""

    exit_code = 2


class CheckpointError(DittoError):
    """A checkpoint folder that is missing, incomplete or inconsistent."""

    exit_code = 2


class PromptError(DittoError):
    """A prompt or a picture that the engines cannot take."""

    exit_code = 2


class OutputError(DittoError):
    """An output folder that cannot be written."""

    exit_code = 2


class TreeError(DittoError):
    """An engine tree that is missing, incomplete or changed since it was built."""

    exit_code = 2


class MissingLibraryError(DittoError):
    """A library that this machine lacks."""

    exit_code = 2


class DeviceError(DittoError):
    """A GPU that is missing, does not fit the tree, or has too little memory."""

    exit_code = 2


class RoomError(DittoError):
    """A build that needs more disk or memory than this machine has to give."""

    exit_code = 2


class ModelError(DittoError):
    """The model does something that Ditto cannot turn into an engine."""


class UnsupportedOperator(ModelError):
    """The model uses operators that no lowering knows.

    Args:
        uses: the operators, and for each the places that use it.
        known: operators that have a lowering.
    """

    def __init__(self, uses: Mapping[str, Sequence[Place]], known: Collection[str]) -> None:
        op, *others = uses
        near = ", ".join(get_close_matches(op, known, n=3)) or "none alike"
        also = f"; also without one: {', '.join(sorted(others))}" if others else ""
        super().__init__(
            cause=f"`{op}` has no lowering{also}",
            where=uses[op][0],
            remedy=f"register one with `@lowers({op})` (known: {near})",
        )
        self.uses = uses


class UnsupportedFact(ModelError):
    """A fact of the model (mask, window, soft-cap, activation mode) that the target cannot honour."""


class ShapeError(DittoError):
    """Shapes or dtypes that do not fit together while a network is described."""


class BuildError(DittoError):
    """TensorRT refused the network or the build, or the process that compiled was killed."""


@contextmanager
def at(where: Place | str | None) -> Generator[None]:
    """Give errors raised inside, that do not know their place yet, this one."""
    try:
        yield
    except DittoError as error:
        if error.where is None:
            error.where = where
        raise
