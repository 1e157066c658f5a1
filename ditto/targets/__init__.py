"""Targets: ways to compile and run engines."""

from ditto.targets.registry import target
from ditto.targets.target import DecoderConfig, Target

__all__ = ["DecoderConfig", "Target", "target"]
