"""Error measures of values, and differences of tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from attrs import frozen
from torch import Tensor

from ditto.reference import relative_error, severity
from ditto.verify.reference_outputs import ReferenceOutputs
from ditto.verify.report import Difference, Measure

_TIMES_OWN_ERROR = 1.5
# Two logits that err independently by `s` each rarely close a gap of more than six times that.
_TIE = 6.0


@frozen(eq=False)
class Trio:
    """The same values from the tree and twice from Hugging Face.

    The first axis counts images or positions.

    Args:
        prompt: number of the prompt, from 1.
        item: name of the items along the first axis.
        found: values of the tree.
        exact, own: values of Hugging Face in float32, and in the tree's dtype.
        first: number of the first item.
    """

    prompt: int
    item: str
    found: Tensor
    exact: Tensor
    own: Tensor
    first: int = 1


def measure(name: str, trios: Sequence[Trio], tolerance: float) -> Measure:
    """Errors over all prompts, and the worst item.

    Args:
        tolerance: relative error that is allowed if Hugging Face's own is small.
    """
    found, exact, own = (
        torch.cat([getattr(trio, side).flatten() for trio in trios]) for side in ("found", "exact", "own")
    )
    items = [
        (
            relative_error(trio.found[index], trio.exact[index]),
            f"prompt {trio.prompt}, {trio.item} {index + trio.first}",
        )
        for trio in trios
        for index in range(len(trio.exact))
    ]
    worst, worst_at = max(items, key=lambda item: severity(item[0]))
    own_error = relative_error(own, exact)
    return Measure(
        name=name,
        relative_error=relative_error(found, exact),
        worst_relative_error=worst,
        worst_at=worst_at,
        max_error=float((found.float() - exact).abs().max()),
        own_error=own_error,
        allowed=max(tolerance, _TIMES_OWN_ERROR * own_error),
    )


def worst_prompt(measured: Sequence[tuple[Measure, Sequence[Trio]]], differences: Sequence[Difference]) -> int:
    """Number of the prompt, from 1, that shows the fault best.

    That with the largest error among the failed measures; without a failed measure, the first whose tokens differ.
    """
    off = [
        (severity(relative_error(trio.found, trio.exact) / each.allowed), trio.prompt)
        for each, trios in measured
        if not each.passed
        for trio in trios
    ]
    wrong = [item.prompt for item in differences if not item.tie]
    return max(off, key=lambda each: each[0])[1] if off else min(wrong, default=1)


def difference(number: int, exact: ReferenceOutputs, tokens: Sequence[int], allowed: float) -> Difference | None:
    """The first token that differs from Hugging Face's; None if all are equal.

    Args:
        number: number of the prompt.
        tokens: tokens of the tree.
        allowed: allowed relative error of the logits.
    """
    if tuple(tokens) == exact.tokens:
        return None
    pairs = [(_at(exact.tokens, index), _at(tokens, index)) for index in range(max(len(exact.tokens), len(tokens)))]
    position = next(index for index, (wanted, found) in enumerate(pairs) if wanted != found)
    wanted, found = pairs[position]
    if wanted < 0 or found < 0:
        return Difference(number, position + 1, wanted, found, gap=None, tie=False)
    logits = exact.logits[position]
    gap = float(logits[wanted] - logits[found])
    each = allowed * float(logits.norm()) / len(logits) ** 0.5
    return Difference(number, position + 1, wanted, found, gap, tie=abs(gap) <= _TIE * each)


def _at(tokens: Sequence[int], index: int) -> int:
    return tokens[index] if index < len(tokens) else -1
