"""Targets: ways to compile and run engines."""

from ditto.targets.registry import target
from ditto.targets.target import LlmFacts, Target

__all__ = ["LlmFacts", "Target", "target"]
