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
    from ditto.text.model import Completion as Completion
    from ditto.text.model import Model as Model
    from ditto.text.model import load as load
    from ditto.text.penalties import Penalties as Penalties

__version__ = "0.1.0"

__all__ = [
    "Completion",
    "DittoError",
    "EngineBuilder",
    "EngineTree",
    "LlavaModel",
    "LlmBuilder",
    "Model",
    "MultimodalModel",
    "Penalties",
    "VisionBuilder",
    "load",
]

_HOME = {
    "Completion": "ditto.text.model",
    "DittoError": "ditto.errors",
    "EngineBuilder": "ditto.builders.engine",
    "EngineTree": "ditto.engine.tree",
    "LlavaModel": "ditto.families.llava",
    "LlmBuilder": "ditto.builders.llm",
    "Model": "ditto.text.model",
    "MultimodalModel": "ditto.families.multimodal",
    "Penalties": "ditto.text.penalties",
    "VisionBuilder": "ditto.builders.vision",
    "load": "ditto.text.model",
}

logger.disable("ditto")  # libraries do not log by default


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'ditto' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
