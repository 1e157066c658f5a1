"""Builders: from settings to engines."""

from ditto.builders.engine import EngineBuilder
from ditto.builders.in_memory import InMemory
from ditto.builders.llm import LlmBuilder
from ditto.builders.source import ModelSource, Pretrained
from ditto.builders.vision import VisionBuilder

__all__ = ["EngineBuilder", "InMemory", "LlmBuilder", "ModelSource", "Pretrained", "VisionBuilder"]
