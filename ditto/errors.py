"""The exceptions that Ditto raises on purpose.

    DittoError                     cause, where, remedy, and `exit_code` for the command line
    ├── ConfigError            2   an unsupported or invalid setting, argument or configuration object
    ├── CheckpointError        2   a checkpoint directory that is missing, incomplete or inconsistent
    ├── PromptError            2   a prompt or an image that the engines cannot process
    ├── OutputError            2   an output directory that cannot be written
    ├── TreeError              2   an engine tree that is missing, incomplete or changed since it was built
    ├── MissingLibraryError    2   a library missing on this machine, with the pip command that installs it
    ├── DeviceError            2   a GPU that is missing, does not fit the tree, or has too little memory
    ├── InsufficientResourcesError              2   not enough disk space or memory for a build
    ├── BusyError              1   a request that was not taken: too many wait, or the model is closed
    ├── DeadlineError          1   an answer that was not complete at its deadline
    ├── ModelError             1   the model uses something that Ditto cannot turn into an engine
    │   ├── UnsupportedOperator
    │   └── UnsupportedFeature
    ├── ShapeError             1   incompatible shapes or dtypes while a network is built
    └── BuildError             1   TensorRT rejected the network, the build failed, or its process was killed

Exit code 2 means that the caller can correct the command; 1 means that the work itself failed.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches

from attrs import frozen
from loguru import logger
from typing_extensions import override


@frozen
class Place:
    """Location in the user's model: the module's path and a line of its source file."""

    module: str = ""
    source: str = ""

    @override
    def __str__(self) -> str:
        if self.module and self.source:
            return f"{self.module} ({self.source})"
        return self.module or self.source


class DittoError(Exception):
    """Base class of Ditto's errors.

    Args:
        cause: what went wrong.
        where: place in the user's model or files.
        remedy: what to do about it.
    """

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
    """An unsupported or invalid setting, argument or configuration object."""

    exit_code = 2


class CheckpointError(DittoError):
    """A checkpoint directory that is missing, incomplete or inconsistent."""

    exit_code = 2


class PromptError(DittoError):
    """A prompt or an image that the engines cannot process."""

    exit_code = 2


class OutputError(DittoError):
    """An output directory that cannot be written."""

    exit_code = 2


class TreeError(DittoError):
    """An engine tree that is missing, incomplete or changed since it was built."""

    exit_code = 2


class MissingLibraryError(DittoError):
    """A library that is not installed on this machine."""

    exit_code = 2


class DeviceError(DittoError):
    """A GPU that is missing, does not fit the tree, or has too little memory."""

    exit_code = 2


class InsufficientResourcesError(DittoError):
    """A build that needs more disk space or memory than this machine has."""

    exit_code = 2


class BusyError(DittoError):
    """A request that was not taken: too many wait already, or the model is closed."""


class DeadlineError(DittoError):
    """An answer that was not complete at its deadline."""


class ModelError(DittoError):
    """A model that uses something that Ditto cannot turn into an engine."""


class UnsupportedOperator(ModelError):
    """A model that uses operators without a lowering.

    Args:
        uses: for each unsupported operator, the places in the model that use it.
        known: names of the operators that have a lowering.
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


class UnsupportedFeature(ModelError):
    """A model with a feature that the target does not support.

    Such features are masks, windows, soft-caps and activation modes.
    """


class ShapeError(DittoError):
    """Incompatible shapes or dtypes, found while a network is built."""


class BuildError(DittoError):
    """TensorRT rejected the network, the build failed, or its process was killed."""


def as_ditto(error: BaseException) -> DittoError:
    """An error to report to the caller; an unexpected one is logged with its traceback, and not shown."""
    if isinstance(error, DittoError):
        return error
    logger.opt(exception=error).error("a request failed unexpectedly")
    failed = DittoError("the request failed unexpectedly", remedy="look into the log, and report it")
    failed.__cause__ = error
    return failed


@contextmanager
def at(where: Place | str | None) -> Generator[None]:
    """Set `where` on a Ditto error that is raised in the block and has no place yet."""
    try:
        yield
    except DittoError as error:
        if error.where is None:
            error.where = where
        raise
