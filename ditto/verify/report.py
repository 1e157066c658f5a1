"""What a verification found: as a table, and as JSON."""

from __future__ import annotations

import math
from typing import Any

from attrs import asdict, field, frozen

from ditto.verify.departure import Departure


def _finite(record: Any) -> Any:
    if isinstance(record, dict):
        return {name: _finite(value) for name, value in record.items()}
    if isinstance(record, (list, tuple)):
        return [_finite(value) for value in record]
    return None if isinstance(record, float) and not math.isfinite(record) else record


@frozen
class Measure:
    """Numbers of the tree against Hugging Face in float32.

    Args:
        name: `features` or `logits`.
        relative_error: over all prompts, Frobenius norm.
        worst_relative_error, worst_at: of the worst picture or position, and which that is.
        max_error: of a single number.
        own_error: of Hugging Face in the tree's dtype; 0 for float32.
        allowed: for `relative_error`.
    """

    name: str
    relative_error: float
    worst_relative_error: float
    worst_at: str
    max_error: float
    own_error: float
    allowed: float

    @property
    def passed(self) -> bool:
        return self.relative_error <= self.allowed


@frozen
class Difference:
    """The first token of a prompt that is not Hugging Face's.

    Args:
        prompt, position: counted from 1.
        wanted, found: the tokens; -1 where an answer has ended.
        gap: how far apart their logits are for Hugging Face in float32; None where one of the answers has ended.
        tie: whether the errors that are allowed can close the gap.
    """

    prompt: int
    position: int
    wanted: int
    found: int
    gap: float | None
    tie: bool


@frozen
class Verification:
    """All of it.

    Args:
        tree, model, session, dtype: what was held against what.
        measures: of features, where there are pictures, and logits.
        tokens: how many were compared.
        differences: at most one for each prompt.
        departures: the first layer of each network that departs; looked for when something else failed.
        compared: sides of modules compared while looking; 0 if nothing was looked for.
        left_out: generation defaults that are not part of the comparison: on both sides, tokens are the most likely.
    """

    tree: str
    model: str
    session: str
    dtype: str
    measures: tuple[Measure, ...]
    tokens: int
    differences: tuple[Difference, ...]
    departures: tuple[Departure, ...] = field(default=())
    compared: int = 0
    left_out: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the tree is the model."""
        return all(measure.passed for measure in self.measures) and all(found.tie for found in self.differences)

    def to_json(self) -> dict[str, Any]:
        """All of it, and the verdict; what is no number is null."""
        return {**_finite(asdict(self)), "passed": self.passed}

    def text(self) -> str:
        """A table that a person reads."""
        lines = [
            f"{self.tree}   session {self.session}, {self.dtype}, against {self.model}",
            "",
            f"{'':<10} {'relative':>10} {'allowed':>10} {'its own':>10} {'largest':>10}   worst",
        ]
        for item in self.measures:
            numbers = (item.relative_error, item.allowed, item.own_error, item.max_error)
            shown = " ".join(f"{number:>10.2e}" for number in numbers)
            verdict = "ok" if item.passed else "FAIL"
            lines.append(f"{item.name:<10} {shown}   {item.worst_relative_error:.2e} at {item.worst_at}   {verdict}")
        verdict = "ok" if all(found.tie for found in self.differences) else "FAIL"
        same = "all as Hugging Face's" if not self.differences else f"{len(self.differences)} prompts differ"
        lines.append(f"{'tokens':<10} {self.tokens} compared, {same}   {verdict}")
        if self.left_out:
            lines.append(f"{'':<10} on both sides without the model's generation defaults: {', '.join(self.left_out)}")
        for item in self.differences:
            kind = "a tie within the allowed error" if item.tie else "not a tie"
            if item.gap is None:
                ended, other = ("the tree's", "Hugging Face's") if item.found < 0 else ("Hugging Face's", "the tree's")
                what = f"{ended} answer has ended, {other} goes on with {max(item.found, item.wanted)}"
            else:
                what = f"{item.found} for {item.wanted}, {item.gap:.2e} apart for Hugging Face: {kind}"
            lines.append(f"  prompt {item.prompt}, token {item.position}: {what}")
        for item in self.departures:
            lines += [
                f"first departing layer of {item.component}: {item.layer} %{item.value}",
                f"  in {item.module or 'the wrapper'} ({item.source}): {item.port}, "
                f"{item.relative_error:.2e} off, {item.allowed:.2e} allowed",
            ]
        if self.compared and not self.departures:
            lines.append(
                f"no layer departs in {self.compared} comparisons: the networks are the model's, what runs them is not"
            )
        return "\n".join([*lines, "passed" if self.passed else "FAILED"])
