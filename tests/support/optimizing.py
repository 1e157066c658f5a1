"""Builders and settings by what engines are for, the same on machines with and without a GPU."""

from __future__ import annotations

from typing import TypeVar

from ditto import LlavaModel, LlmBuilder, VisionBuilder
from ditto.configs.build import PRESETS, BuildSettings

B = TypeVar("B", LlavaModel, LlmBuilder, VisionBuilder)

PORTABLE = BuildSettings()
LATENCY = BuildSettings(**{**PRESETS["latency"], "tuning": "9.0"})  # type: ignore[arg-type]


def latency(builder: B) -> B:
    """Separate, specialized engines with external weights, in the forms that are fast on an H200."""
    return builder.with_optimize("latency").with_tuning("9.0")


def by_weights(builder: B, place: str) -> B:
    """Portable engines, or the fastest with external weights."""
    return latency(builder) if place == "external" else builder.with_optimize("portable")
