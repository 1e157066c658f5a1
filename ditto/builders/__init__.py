"""Builders: settings in, engines out."""

from ditto.builders.engine import EngineBuilder
from ditto.builders.llm import LlmBuilder
from ditto.builders.source import InMemory, ModelSource, Pretrained
from ditto.builders.vision import VisionBuilder

__all__ = ["EngineBuilder", "InMemory", "LlmBuilder", "ModelSource", "Pretrained", "VisionBuilder"]
