"""Small trees for tests, built once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ditto import EngineTree, LlavaModel, LlmBuilder
from tests.support.models import llama, llava


def llava_tree(out: Path, batch: int = 2, **settings: Any) -> EngineTree:
    """A tiny LLaVA's tree."""
    return LlavaModel.from_model(llava(**settings)).with_batch(batch).with_target("tensorrt-rtx").build_all(out)


def llama_tree(out: Path, batch: int = 2) -> EngineTree:
    """A tiny Llama's tree: one engine."""
    return LlmBuilder.from_model(llama()).with_batch(batch).with_target("tensorrt-rtx").build(out)
