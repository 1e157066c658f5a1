"""Ditto: TensorRT engines from Hugging Face vision-language models.

Engines are built directly from the PyTorch code of the model.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from loguru import logger

if TYPE_CHECKING:
    from ditto.builders.engine import EngineBuilder as EngineBuilder
    from ditto.builders.llm import LlmBuilder as LlmBuilder
    from ditto.builders.vision import VisionBuilder as VisionBuilder
    from ditto.engine.tree import EngineTree as EngineTree
    from ditto.errors import DittoError as DittoError
    from ditto.families.llava import LlavaModel as LlavaModel
    from ditto.families.multimodal import MultimodalModel as MultimodalModel

__version__ = "0.1.0"

__all__ = [
    "DittoError",
    "EngineBuilder",
    "EngineTree",
    "LlavaModel",
    "LlmBuilder",
    "MultimodalModel",
    "VisionBuilder",
]

_HOME = {
    "DittoError": "ditto.errors",
    "EngineBuilder": "ditto.builders.engine",
    "EngineTree": "ditto.engine.tree",
    "LlavaModel": "ditto.families.llava",
    "LlmBuilder": "ditto.builders.llm",
    "MultimodalModel": "ditto.families.multimodal",
    "VisionBuilder": "ditto.builders.vision",
}

logger.disable("ditto")  # libraries do not log by default


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'ditto' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
