"""Refusals: places where rewrites and passes did not apply, with reasons."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen

from ditto.errors import Place


@frozen
class Refusal:
    """A place where a rewrite or pass did not apply, and the reason."""

    place: Place
    reason: str


def refusal_lines(refused: Iterable[Refusal]) -> list[str]:
    """One line per reason: its count and first place."""
    places: dict[str, list[Place]] = {}
    for refusal in refused:
        places.setdefault(refusal.reason, []).append(refusal.place)
    return [_line(reason, found) for reason, found in places.items()]


def _line(reason: str, places: list[Place]) -> str:
    first = f", first at {places[0]}" if str(places[0]) else ""
    return f"refused {len(places)} times{first}: {reason}"
