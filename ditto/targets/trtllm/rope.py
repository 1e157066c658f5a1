"""Rotary embedding in the attention plugin: tables, compared with the model's.

Source: contract, LLM 4.4.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from ditto.targets.trtllm import inferred
from ditto.targets.trtllm.plugins.gpt_attention import SCALE_TYPES

# Two ways of computing angles of thousands of radians differ by float32 rounding. Different kinds or factors of scaling
# differ far more than this.
_TABLE_TOLERANCE = 5e-3


@frozen
class PluginRope:
    """Rope parameters and tables of the attention plugin.

    Args:
        base: theta.
        scale_type: TensorRT-LLM's number for the kind of scaling.
        scale: factor of the scaling, 1 for none.
        inv_freq: float32 [R / 2].
        cos_sin: float32 [1, positions * R], pairs (cos, sin) per frequency, for each position.
    """

    base: float
    scale_type: int
    scale: float
    inv_freq: Tensor
    cos_sin: Tensor


def plugin_rope(base: float, scaling: Mapping[str, Any] | None, width: int, positions: int) -> PluginRope | None:
    """The plugin's rope for a configuration.

    None for kinds of scaling that the plugin is not trusted with (see `inferred.ROPE_IN_PLUGIN`).

    Args:
        base: theta.
        scaling: `rotary_scaling` of config.json: `type` and its parameters; None for none.
        width: number of rotated columns R, even.
        positions: number of rows of the table.
    """
    kind = str(scaling["type"]) if scaling else "default"
    if kind not in inferred.ROPE_IN_PLUGIN:
        return None
    factor = float(scaling["factor"]) if scaling and kind != "default" else 1.0
    # Bit-identical to TensorRT-LLM's tables (contract 9): powers in float64, rounded to float32; the rest in float32.
    powers = (base ** (np.arange(0, width, 2) / width)).astype(np.float32)
    inv_freq = np.float32(1.0 / factor if kind == "linear" else 1.0) / powers
    if kind == "llama3" and scaling is not None:
        inv_freq = _llama3(inv_freq, scaling)
    angles = np.expand_dims(np.outer(np.arange(positions, dtype=np.float32), inv_freq), -1)
    table = np.concatenate((np.cos(angles), np.sin(angles)), axis=-1).astype(np.float32)
    return PluginRope(
        base,
        SCALE_TYPES[kind],
        factor,
        torch.from_numpy(inv_freq),
        torch.from_numpy(table.reshape(1, -1)),
    )


def _llama3(inv_freq: np.ndarray, scaling: Mapping[str, Any]) -> np.ndarray:
    """Llama 3.1's smoothing of frequencies, computed in float64.

    Long wavelengths are scaled, short ones are kept, those between are blended.

    Source: transformers, `_compute_llama3_parameters`.
    """
    inv_freq = inv_freq.astype(np.float64)
    factor, low, high = (float(scaling[name]) for name in ("factor", "low_freq_factor", "high_freq_factor"))
    original = float(scaling["original_max_position_embeddings"])
    wavelength = 2 * math.pi / inv_freq
    smooth = (original / wavelength - low) / (high - low)
    blended = (1 - smooth) * inv_freq / factor + smooth * inv_freq
    scaled = np.where(wavelength > original / low, inv_freq / factor, blended)
    return np.where(wavelength < original / high, inv_freq, scaled).astype(np.float32)


def is_same(rope: PluginRope, cos: Tensor, sin: Tensor) -> bool:
    """Whether the plugin's tables equal the model's, except for rounding.

    Args:
        cos, sin: the model's tables [P, R / 2], with at most as many positions P as the plugin's.
    """
    rows, half = cos.shape
    if half != len(rope.inv_freq):
        return False
    table = rope.cos_sin.reshape(-1, half, 2)[:rows]
    if len(table) < rows:
        return False
    found = torch.stack((cos, sin), dim=-1).float()
    return bool((found - table).abs().max() <= _TABLE_TOLERANCE)
