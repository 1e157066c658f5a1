"""Rotary embedding inside the attention plugin: its tables, and whether they are the model's (contract, LLM 4.4)."""

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

# Angles of thousands of radians differ by float32 rounding between two ways of computing them; kinds and factors of
# scaling differ by far more.
_TABLE_TOLERANCE = 5e-3


@frozen
class PluginRope:
    """What the attention plugin is told of rope, and the tables it is given.

    Args:
        base: theta.
        scale_type: TensorRT-LLM's number of the kind of scaling.
        scale: its factor, 1 without.
        inv_freq: float32 [R / 2].
        cos_sin: float32 [1, positions * R], (cos, sin) per frequency, position by position.
    """

    base: float
    scale_type: int
    scale: float
    inv_freq: Tensor
    cos_sin: Tensor


def plugin_rope(base: float, scaling: Mapping[str, Any] | None, width: int, positions: int) -> PluginRope | None:
    """The plugin's rope for a configuration, or None for a kind of scaling that it is not trusted with.

    Args:
        base: theta.
        scaling: as in config.json's `rotary_scaling`: `type` and its numbers; None for none.
        width: rotated columns R, even.
        positions: rows of the table.
    """
    kind = str(scaling["type"]) if scaling else "default"
    if kind not in inferred.ROPE_IN_PLUGIN:
        return None
    factor = float(scaling["factor"]) if scaling and kind != "default" else 1.0
    # Bit by bit TensorRT-LLM's own tables (contract 9): powers in float64, rounded to float32; all else in float32.
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
    """Llama 3.1's smoothing: long wavelengths are scaled, short ones kept, those between blended; in float64.

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
    """Whether the plugin's tables are those that the model computes, rounding aside.

    Args:
        cos, sin: the model's, [P, R / 2], P at most the plugin's positions.
    """
    rows, half = cos.shape
    if half != len(rope.inv_freq):
        return False
    table = rope.cos_sin.reshape(-1, half, 2)[:rows]
    if len(table) < rows:
        return False
    found = torch.stack((cos, sin), dim=-1).float()
    return bool((found - table).abs().max() <= _TABLE_TOLERANCE)
