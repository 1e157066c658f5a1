"""Quantisation of a float checkpoint: which weights, and in which form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from attrs import frozen
from torch import nn

from ditto.builders.source import Loaded
from ditto.errors import ConfigError
from ditto.network.quantized import has_quantized, round_to_nearest
from ditto.network.weight import Folded, Stored, Weight
from ditto.targets.part import WeightOf

Quantization = Literal["none", "int8", "int4"]

_BITS: Mapping[str, int] = {"int8": 8, "int4": 4}
# Columns of a group of 4-bit integers; the first that divides a row.
_GROUPS = (128, 64, 32, 16)
# Linear layers that choose between others: small, and a changed choice changes everything after it.
_ROUTERS = ("gate", "router", "shared_expert_gate")


def parse_quantization(name: str) -> Quantization:
    """The quantisation of a name.

    Raises:
        ConfigError: there is none.
    """
    for known in get_args(Quantization):
        if name == known:
            return known
    raise ConfigError(f"{name!r} is not a quantisation", remedy=f"choose from {', '.join(get_args(Quantization))}")


@frozen
class QuantizedLinears:
    """Weights of a decoder whose linear layers are rounded to integers; its output embedding stays as it is.

    int8 has a scale for each row, int4 one for each group of columns. A layer whose columns form no group, or
    whose weight is computed from several tensors, stays float.

    Args:
        quantization: `int8` or `int4`.
        wrapper: module that is captured.
        head: the output embedding; None if it is not known.
    """

    quantization: Quantization
    wrapper: nn.Module
    head: nn.Module | None

    def weight_of(self, loaded: Loaded) -> WeightOf:
        """Function from a parameter's name in the wrapper to its weight.

        Raises:
            ConfigError: the checkpoint is quantised already.
        """
        float_weight = loaded.weight_of(self.wrapper)
        modules = self.wrapper.named_modules(remove_duplicate=False)
        linears = {f"{name}.weight" for name, module in modules if self._includes(name, module)}

        def weight_of(name: str) -> Weight:
            weight = float_weight(name)
            size = self._group(weight.shape) if name in linears else 0
            if not size:
                return weight
            if has_quantized(weight):
                raise ConfigError(
                    "The checkpoint is quantised already.", remedy="leave the quantisation out, or give the float model"
                )
            stored = weight.operands[0] if isinstance(weight, Folded) and weight.op == "cast" else weight
            if not isinstance(stored, Stored):
                return weight
            return round_to_nearest(stored, _BITS[self.quantization], size, loaded.dtype)

        return weight_of

    def _includes(self, name: str, module: nn.Module) -> bool:
        if not isinstance(module, nn.Linear) or name.rpartition(".")[2] in _ROUTERS:
            return False
        return module.weight is not getattr(self.head, "weight", None)

    def _group(self, shape: tuple[int, ...]) -> int:
        """Columns of a group; 0 if there is no group."""
        if self.quantization == "int8":
            return shape[1]
        return next((size for size in _GROUPS if shape[1] % size == 0), 0)
