"""Lowerings of attention that take its arguments by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ditto.lowering.lower import Lowering, Operand
from ditto.lowering.registry import LoweringFunction
from ditto.network.graph import Value
from ditto.ops.attention import AttentionArguments


def by_name(function: Callable[[Lowering, AttentionArguments[Operand]], Value]) -> LoweringFunction:
    """A lowering of `ditto.attention`, from a function of its arguments by name."""

    def lowering(net: Lowering, *args: Any, **kwargs: Any) -> Value:
        return function(net, AttentionArguments(*args, **kwargs))

    return lowering
