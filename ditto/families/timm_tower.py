"""Towers of the package timm, by the settings of transformers' wrapper of them."""

from __future__ import annotations

from typing import Any

import torch

from ditto.errors import CheckpointError


def timm_tower(vision: Any) -> Any:
    """The tower of a configuration, as a model of timm without weights.

    Args:
        vision: a `TimmWrapperConfig`.
    Raises:
        CheckpointError: it is a tower of another kind, timm is not installed, or it does not know the architecture.
    """
    if vision.model_type != "timm_wrapper":
        raise CheckpointError(
            f"its tower is a {vision.model_type!r} model", remedy="use a checkpoint whose tower is one of timm"
        )
    try:
        import timm
    except ImportError as error:
        raise CheckpointError(
            f"its tower {vision.architecture!r} is of the package timm, which cannot be imported: {error}",
            remedy="install timm: pip install 'ditto-trt[timm]'",
        ) from error
    try:
        with torch.device("meta"):
            return timm.create_model(vision.architecture, pretrained=False, num_classes=0, **(vision.model_args or {}))
    except Exception as error:
        raise CheckpointError(
            f"timm {timm.__version__} cannot make the tower {vision.architecture!r}: {error}",
            remedy="check vision_config in config.json, or install a newer timm",
        ) from error
