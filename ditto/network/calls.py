"""How the parts of a network follow each other, and `calls.json`, which says it beside the engines."""

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
    """One run of a part.

    Args:
        part: its index.
        tensors: for each of its inputs and outputs, the tensor of the whole network that it is this time.
        beside: no call reads what it makes, and it may run at the same time as those that follow, up to the next of
            its kind.
    """

    part: int
    tensors: Mapping[str, str]
    beside: bool = False


@frozen
class Calls:
    """Runs of parts, one after the other or, of some, beside others. The tensors of the whole network are its inputs,
    its outputs, its weights, and what calls hand on.

    Args:
        calls: in order.
        between: specs of what they hand on.
    """

    calls: tuple[Call, ...]
    between: Mapping[str, Spec]

    @staticmethod
    def once(names: Iterable[str]) -> Calls:
        """One part, with all of these tensors, run once."""
        return Calls((Call(0, {name: name for name in names}),), {})


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


def save_calls(calls: Calls, path: Path) -> None:
    """Write `calls.json`."""
    data = _converter().unstructure(_CallsFile(FORMAT, dict(calls.between), calls.calls))
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load_calls(path: Path, parts: int | None = None) -> Calls:
    """Read `calls.json`.

    Args:
        parts: how many there are, None where that is not known.
    Raises:
        TreeError: it is missing, damaged or of another format, or calls a part that is not there.
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
    return Calls(content.calls, content.between)
