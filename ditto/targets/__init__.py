"""Ways to build and run engines."""

from ditto.targets.compile import Profile
from ditto.targets.registry import target
from ditto.targets.target import LlmFacts, Target

__all__ = ["LlmFacts", "Profile", "Target", "target"]
