"""Pixels for engines whose images are tiles of one size."""

from __future__ import annotations

import torch
from torch import Tensor

from ditto.families.preprocessor import TilePreprocessor
from ditto.runtime import Session
from ditto.verify.inputs import Prompts


def features(session: Session, pixels: Tensor) -> Tensor:
    """A tree's image embeddings: [tiles, rows, width]."""
    return torch.stack(session.embeddings(TilePreprocessor().items({"pixel_values": pixels})))


def prompts(ids: Tensor, pixels: Tensor | None = None) -> Prompts:
    """Prompts and the pixels of their images."""
    if pixels is None:
        return Prompts(ids)
    given = {"pixel_values": pixels}
    return Prompts(ids, given, tuple(TilePreprocessor().items(given)))
