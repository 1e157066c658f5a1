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
# float32 angles of a few thousand radians are off by 2e-4; a wrong base, factor or layout by far more.
_TABLE_TOLERANCE = 1e-3
_FREQUENCY_TOLERANCE = 1e-5


class _NoCheckpoint:
    def tensor(self, name: str) -> torch.Tensor:
        raise LookupError(name)

    def release(self) -> None:
        """Nothing is held."""


def constant_tensor(network: Network, layer: Constant) -> torch.Tensor:
    """The numbers of a constant that the network itself carries."""
    return resolve(layer.weight, _NoCheckpoint(), network.literals)


def _frequencies(scope: Scope) -> np.ndarray:
    """One per pair of columns, float64: theta^(-2j/R), scaled as the plugin's scale type says."""
    field = scope["field"]
    width = int(field.rotary_embedding_dim)
    plain = 1.0 / field.rotary_embedding_base ** (np.arange(0, width, 2, dtype=np.float64) / width)
    if field.rotary_embedding_scale_type == _LINEAR:
        return plain / field.rotary_embedding_scale
    if field.rotary_embedding_scale_type != _LLAMA3:
        return plain
    scaling = scope["pretrained"].rotary_scaling
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    original = scaling.original_max_position_embeddings
    turns = original * plain / (2 * math.pi)  # how often a frequency turns within the original context
    share = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return share * plain + (1 - share) * plain / scaling.factor


def _inv_freq(found: torch.Tensor, scope: Scope) -> Iterator[str]:
    wanted = _frequencies(scope)
    off = float(np.abs(found.double().numpy() / wanted - 1).max())
    if off > _FREQUENCY_TOLERANCE:
        yield f"differs from the contract's frequencies by {off:.1e}"


def _cos_sin(found: torch.Tensor, scope: Scope) -> Iterator[str]:
    wanted = _frequencies(scope)
    table = found.double().numpy().reshape(-1, len(wanted), 2)
    angles = np.arange(len(table))[:, None] * wanted[None]
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
