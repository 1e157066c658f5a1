"""A model of which only config.json is at hand: its shapes, and no numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from torch import Tensor
from typing_extensions import override

from ditto.builders.source import Loaded, ModelSource, Pretrained
from ditto.errors import CheckpointError
from ditto.network.weight import Stored


@frozen(slots=False, eq=False)
class Outline(ModelSource):
    """Weights are named after the model's parameters; they can be described, not read.

    Args:
        of: the folder or hub id. Of the latter, text files alone are downloaded.
    """

    of: Pretrained

    @property
    @override
    def name(self) -> str:  # type: ignore[override]
        return self.of.name

    @property
    @override
    def config(self) -> Any:
        return self.of.config

    @property
    @override
    def generation_config(self) -> Mapping[str, Any]:
        return self.of.generation_config

    @property
    @override
    def dtype(self) -> torch.dtype:
        return self.of.stated_dtype or torch.float32  # as transformers reads a configuration that states none

    @property
    @override
    def checkpoint(self) -> None:
        return None

    @override
    def load(self, dtype: torch.dtype) -> Loaded:
        model = self.of.skeleton(dtype)
        named = dict(model.named_parameters(remove_duplicate=False))
        weights = {id(part): Stored(name, tuple(part.shape), part.dtype) for name, part in named.items()}
        return Loaded(model, dtype, weights, _NoTensors(self.of.name))

    @override
    def copy_processor(self, folder: Path) -> None:
        """Nothing is built from an outline."""


@frozen
class _NoTensors:
    where: str

    def tensor(self, name: str) -> Tensor:
        """Raises:
        CheckpointError: always.
        """
        raise CheckpointError(
            f"tensor `{name}` is not at hand: only the configuration is", where=self.where, remedy="add the weights"
        )

    def release(self) -> None:
        """There is nothing to let go of."""
