"""Result of a verification, as a table and as JSON."""

from __future__ import annotations

import math
from typing import Any

from attrs import asdict, field, frozen

from ditto.verify.cost import QuantizationCost
from ditto.verify.divergence import Divergence


def _finite(record: Any) -> Any:
    if isinstance(record, dict):
        return {name: _finite(value) for name, value in record.items()}
    if isinstance(record, (list, tuple)):
        return [_finite(value) for value in record]
    return None if isinstance(record, float) and not math.isfinite(record) else record


@frozen
class Measure:
    """Errors of the tree's values relative to Hugging Face in float32.

    Args:
        name: `features` or `logits`.
        relative_error: over all prompts, in the Frobenius norm.
        worst_relative_error, worst_at: error of the worst image or position, and its description.
        max_error: largest absolute error of a single value.
        own_error: relative error of Hugging Face in the tree's dtype; 0 for float32.
        allowed: limit of `relative_error`.
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
    """The first token of a prompt's answer that differs from Hugging Face's.

    Args:
        prompt, position: numbers from 1.
        wanted, found: Hugging Face's token and the tree's; -1 where an answer has ended.
        gap: difference of their logits for Hugging Face in float32; None where one of the answers has ended.
        tie: whether the allowed errors can close the gap.
    """

    prompt: int
    position: int
    wanted: int
    found: int
    gap: float | None
    tie: bool


@frozen
class Verification:
    """Complete result of a verification.

    Args:
        tree, model, session, dtype: the tree, the model it was compared with, and how both ran.
        measures: of image embeddings, if there are images, and of logits.
        tokens: number of compared tokens.
        differences: at most one per prompt.
        divergences: the first diverging layer of each network; located only if another comparison failed.
        compared: number of module inputs and outputs compared to locate them; 0 if nothing failed.
        left_out: generation defaults that the comparison ignores: both sides decode greedily.
        in_tf32: whether the session rounds the operands of a float32 tree's products to TF32.
        cost: of the quantisation, for a tree that was quantised when it was built; the model is then the quantised one.
    """

    tree: str
    model: str
    session: str
    dtype: str
    measures: tuple[Measure, ...]
    tokens: int
    differences: tuple[Difference, ...]
    divergences: tuple[Divergence, ...] = field(default=())
    compared: int = 0
    left_out: tuple[str, ...] = ()
    cost: QuantizationCost | None = None
    in_tf32: bool = False

    @property
    def passed(self) -> bool:
        """Whether the tree agrees with the model."""
        return all(measure.passed for measure in self.measures) and all(found.tie for found in self.differences)

    def to_json(self) -> dict[str, Any]:
        """All fields and the verdict as JSON values; NaN and infinities become null."""
        return {**_finite(asdict(self)), "passed": self.passed}

    def text(self) -> str:
        """The result as a table for the terminal."""
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
        if self.in_tf32:
            lines.append(f"{'':<10} this TensorRT rounds the operands of float32 products to TF32: more is allowed")
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
        for item in self.divergences:
            lines += [
                f"first diverging layer of {item.component}: {item.layer} %{item.value}",
                f"  in {item.module or 'the wrapper'} ({item.source}): {item.port}, "
                f"{item.relative_error:.2e} off, {item.allowed:.2e} allowed",
            ]
        if self.cost is not None:
            lines.append(self.cost.text())
        if self.compared and not self.divergences:
            lines.append(
                f"no layer diverges in {self.compared} comparisons: "
                "the networks match the model, the session that runs them does not"
            )
        return "\n".join([*lines, "passed" if self.passed else "FAILED"])
