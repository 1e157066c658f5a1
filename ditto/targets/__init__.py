"""Targets: ways to compile and run engines."""

from ditto.targets.part import DecoderConfig, LanguagePart, ModelPart, VisionPart
from ditto.targets.registry import target
from ditto.targets.target import Target

__all__ = ["DecoderConfig", "LanguagePart", "ModelPart", "Target", "VisionPart", "target"]
