"""What is in the constants that plugins are given: the rotary tables (contract, LLM 4.4), computed here anew."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from ditto.network import Network, resolve
from ditto.network.layers import Constant
from tests.support.conformance.rules import Scope, Undefined

_LINEAR, _LLAMA3 = 1, 4
# Cosines and sines of float32 numbers, rounded to float32; libraries differ in the last bit or two.
_TABLE_TOLERANCE = 2.5e-7


class _NoCheckpoint:
    def tensor(self, name: str) -> torch.Tensor:
        raise LookupError(name)

    def release(self) -> None:
        """Nothing is held."""


def constant_tensor(network: Network, layer: Constant) -> torch.Tensor:
    """The numbers of a constant that the network itself carries."""
    return resolve(layer.weight, _NoCheckpoint(), network.literals)


def _frequencies(scope: Scope) -> np.ndarray:
    """float32, one per pair of columns: scale / float32(theta^(2j/R)) (contract, LLM 9), smoothed for llama3."""
    field = scope["field"]
    width = int(field.rotary_embedding_dim)
    powers = np.array([field.rotary_embedding_base ** (column / width) for column in range(0, width, 2)])
    is_linear = field.rotary_embedding_scale_type == _LINEAR
    scale = np.float32(1.0 / field.rotary_embedding_scale if is_linear else 1.0)
    plain = scale / powers.astype(np.float32)
    if field.rotary_embedding_scale_type != _LLAMA3:
        return plain
    return np.array([_smoothed(float(frequency), scope["pretrained"].rotary_scaling) for frequency in plain], "float32")


def _smoothed(frequency: float, scaling: Any) -> float:
    """llama3's frequency, in float64 (NumPy 1, to which TensorRT-LLM is pinned, computes with single numbers so)."""
    wavelength = 2 * math.pi / frequency
    low, high, original = scaling.low_freq_factor, scaling.high_freq_factor, scaling.original_max_position_embeddings
    if wavelength < original / high:
        return frequency
    if wavelength > original / low:
        return frequency / scaling.factor
    share = (original / wavelength - low) / (high - low)
    return (1 - share) * frequency / scaling.factor + share * frequency


def _inv_freq(found: torch.Tensor, scope: Scope) -> Iterator[str]:
    wanted = _frequencies(scope)
    if not np.array_equal(found.numpy(), wanted):
        off = float(np.abs(found.double().numpy() / wanted - 1).max())
        yield f"differs from the contract's frequencies by {off:.1e}"


def _cos_sin(found: torch.Tensor, scope: Scope) -> Iterator[str]:
    wanted = _frequencies(scope)
    table = found.double().numpy().reshape(-1, len(wanted), 2)
    angles = (np.arange(len(table), dtype=np.float32)[:, None] * wanted[None]).astype(np.float64)
    off = float(np.abs(table - np.stack((np.cos(angles), np.sin(angles)), axis=-1)).max())
    if off > _TABLE_TOLERANCE:
        yield f"differs from the contract's cosines and sines by {off:.1e}"


def _said(check: Callable[[torch.Tensor, Scope], Iterator[str]]) -> Callable[[torch.Tensor, Scope], Iterator[str]]:
    def run(found: torch.Tensor, scope: Scope) -> Iterator[str]:
        try:
            yield from check(found, scope)
        except Undefined as error:
            yield f"cannot be computed: config.json does not say {error}"

    return run


CONTENTS: Mapping[str, Callable[[torch.Tensor, Any], Iterator[str]]] = {
    "rotary_inv_freq": _said(_inv_freq),
    "rotary_cos_sin": _said(_cos_sin),
}
