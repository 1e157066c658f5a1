"""The order in which the parts of a network run, and its file `schedule.json` next to the engines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from attrs import frozen
from cattrs import Converter
from cattrs.errors import BaseValidationError

from ditto.errors import TreeError
from ditto.files import read_json
from ditto.network.spec import Spec
from ditto.strict import faults_of, strict_converter

FORMAT = 2


@frozen
class Call:
    """One execution of a part of a network.

    Args:
        part: index of the part.
        tensors: for each input and output of the part, the tensor of the whole network that is bound to it.
        concurrent: no call reads the part's outputs, so it may run concurrently with the following calls, up to the
            next call with this flag.
    """

    part: int
    tensors: Mapping[str, str]
    concurrent: bool = False


@frozen
class Schedule:
    """The calls of a network's parts, in order; some may run concurrently with others.

    The tensors of the whole network are its inputs, outputs and weights, and the intermediate tensors between calls.

    Args:
        calls: in order.
        between: specs of the intermediate tensors, by name.
    """

    calls: tuple[Call, ...]
    between: Mapping[str, Spec]

    @staticmethod
    def once(names: Iterable[str]) -> Schedule:
        """A single call of a single part, with these tensors."""
        return Schedule((Call(0, {name: name for name in names}),), {})


@frozen
class _CallsFile:
    format: int
    between: dict[str, Spec]
    calls: tuple[Call, ...]


@cache
def _converter() -> Converter:
    converter = strict_converter()
    converter.register_unstructure_hook(Spec, str)
    converter.register_structure_hook(Spec, lambda text, _: Spec.parse(str(text)))
    return converter


def save_schedule(calls: Schedule, path: Path) -> None:
    """Write `schedule.json`."""
    data = _converter().unstructure(_CallsFile(FORMAT, dict(calls.between), calls.calls))
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load_schedule(path: Path, parts: int | None = None) -> Schedule:
    """Read `schedule.json`.

    Args:
        parts: the number of parts, None if it is not known.
    Raises:
        TreeError: the file is missing, damaged or of another format, or it calls a part that does not exist.
    """
    remedy = "build the tree again"
    try:
        data = read_json(path)
    except (OSError, ValueError) as error:
        raise TreeError(f"cannot read the calls: {error}", where=str(path), remedy=remedy) from error
    found = data.get("format") if isinstance(data, dict) else None
    if found != FORMAT:
        raise TreeError(f"the calls have format {found}, not {FORMAT}", where=str(path), remedy=remedy)
    try:
        content = _converter().structure(data, _CallsFile)
    except BaseValidationError as error:
        raise TreeError(f"the file of calls is damaged: {faults_of(error)}", where=str(path), remedy=remedy) from error
    unknown = [call.part for call in content.calls if call.part < 0 or (parts is not None and call.part >= parts)]
    if unknown:
        raise TreeError(f"the file of calls is damaged: there is no part {unknown[0]}", where=str(path), remedy=remedy)
    return Schedule(content.calls, content.between)
