"""Config-only model source: shapes from config.json, without weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from torch import Tensor
from typing_extensions import override

from ditto.builders.source import Loaded, ModelSource, Pretrained
from ditto.checkpoint import quantization_of
from ditto.errors import CheckpointError
from ditto.network.weight import Stored


@frozen(slots=False, eq=False)
class ConfigOnlySource(ModelSource):
    """Source whose weights can be described but not read.

    The weights are named after the model's parameters.

    Args:
        of: the directory or hub id. Of a hub id, only text files are downloaded.
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
    def image_processor(self) -> Mapping[str, Any]:
        return self.of.image_processor

    @property
    @override
    def dtype(self) -> torch.dtype:
        return self.of.stated_dtype or torch.float32  # the default of transformers if the configuration states none

    @property
    @override
    def checkpoint(self) -> None:
        return None

    @override
    def load(self, dtype: torch.dtype) -> Loaded:
        scheme = quantization_of(self.of.text_directory)
        if scheme is not None:
            raise CheckpointError(
                f"The checkpoint is quantised ({scheme.title}), and its weights are not on this machine.",
                where=self.name,
                remedy="download the checkpoint first: the layers that are quantised are known from its tensors",
            )
        model = self.of.skeleton(dtype)
        named = dict(model.named_parameters(remove_duplicate=False))
        weights = {id(part): Stored(name, tuple(part.shape), part.dtype) for name, part in named.items()}
        return Loaded(model, dtype, weights, _NoTensors(self.of.name))

    @override
    def copy_processor(self, directory: Path) -> None:
        """Do nothing: no engine is built from this source."""


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
        """Do nothing: no memory is held."""
