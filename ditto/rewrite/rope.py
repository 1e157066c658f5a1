"""Recognition of rotary position embedding, in the forms that models use."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding

from ditto import ops
from ditto.program import Program
from ditto.rewrite.rule import Bindings, Rewrite


def _half_pairs(x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor, half: int) -> Tensor:
    """Form of Llama and most other models: column pairs (j, j + half), tables with both halves."""
    c, s = embedding(positions, cos).unsqueeze(1), embedding(positions, sin).unsqueeze(1)
    return x * c + torch.cat((-x[..., half:], x[..., :half]), dim=-1) * s


def _half_rope(x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor, half: int) -> Tensor:
    return ops.rope(x, cos[:, :half], sin[:, :half], positions, False)


def _halves_repeat(program: Program, found: Bindings) -> str | None:
    half = found["half"]
    if found["x"].meta["val"].shape[-1] != 2 * half:
        return "the pairs are not the two halves of a head"
    for name in ("cos", "sin"):
        node = found[name]
        if node.op != "get_attr" or node.target not in program.constants:
            return f"the {name} table is not a constant"
        if node.meta["val"].shape[-1] != 2 * half or not program.fact(node, _repeats):
            return f"the {name} table does not repeat its first half"
    return None


def _repeats(table: Tensor) -> bool:
    half = table.shape[-1] // 2
    return torch.equal(table[:, :half], table[:, half:])


ROPE_OF_HALVES = Rewrite(
    "rope of halves",
    _half_pairs,
    _half_rope,
    sample=(
        torch.randn(2, 3, 5, 74),
        torch.randn(9, 37).repeat(1, 2),
        torch.randn(9, 37).repeat(1, 2),
        torch.tensor([[0, 3, 1, 8, 2], [4, 5, 6, 7, 0]], dtype=torch.int32),
        37,
    ),
    only_if=_halves_repeat,
)
