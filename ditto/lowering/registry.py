"""Registry of lowering functions, one per operator, checked against the operator's schema."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch._ops import OpOverload

LoweringFunction = Callable[..., Any]
Table = Mapping[OpOverload, LoweringFunction]

_TABLE: dict[OpOverload, LoweringFunction] = {}


def lowers(*operators: OpOverload) -> Callable[[LoweringFunction], LoweringFunction]:
    """Register a function as the lowering of operators that share a schema.

    Its parameters after the first (the `Lowering`) have the schema's names in the schema's order; tensors may have
    other names, and trailing parameters without effect in an engine (memory format, device) may be omitted.

    Raises:
        TypeError: the parameters do not match the schema, or an operator is already registered.
    """

    def register(function: LoweringFunction) -> LoweringFunction:
        for operator in operators:
            _check_signature(operator, function)
            if operator in _TABLE:
                raise TypeError(f"{operator} is lowered by {_TABLE[operator].__name__} already")
            _TABLE[operator] = function
        return function

    return register


def table() -> Table:
    """The lowerings that all targets share."""
    return dict(_TABLE)


# Arguments without effect in an engine: memory layout and location, gradients, and hints.
_IGNORED = frozenset(
    {
        "copy",
        "device",
        "generator",
        "implicit",
        "layout",
        "memory_format",
        "non_blocking",
        "padding_idx",
        "pin_memory",
        "scale_grad_by_freq",
        "sparse",
    }
)


def _check_signature(operator: OpOverload, function: LoweringFunction) -> None:
    given = list(inspect.signature(function).parameters)[1:]
    wanted = [argument for argument in operator._schema.arguments if argument.name not in _IGNORED]
    for name, argument in zip(given, wanted, strict=False):
        tensor = "Tensor" in str(argument.type)
        if name != argument.name and not tensor:
            raise TypeError(f"{function.__name__}: `{name}` should be `{argument.name}` as in {operator._schema}")
    if len(given) != len(wanted):
        raise TypeError(f"{function.__name__} takes {given}, {operator._schema} has {[a.name for a in wanted]}")


def call(operator: OpOverload, function: LoweringFunction, net: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
    """Call a lowering with a node's arguments, without those that have no effect in an engine."""
    names = [argument.name for argument in operator._schema.arguments]
    kept = [value for name, value in zip(names, args, strict=False) if name not in _IGNORED]
    return function(net, *kept, **{name: value for name, value in kwargs.items() if name not in _IGNORED})
