"""Settings of engines that do not follow from the model or the target."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from ditto.configs.tensorrt import TensorRTConfig

WeightPlacement = Literal["embedded", "external"]


@frozen(kw_only=True)
class BuildSettings:
    """How the engines of a part of a model are built.

    Args:
        weights: `embedded` in the engines, or `external`: large ones are engine inputs.
        tensorrt: TensorRT's own settings.
        compute_capabilities: GPUs to build for, e.g. `8.9`; empty for a portable engine (TensorRT-RTX) or for the
            installed GPU (TensorRT).
    """

    weights: WeightPlacement = "embedded"
    tensorrt: TensorRTConfig = TensorRTConfig()
    compute_capabilities: tuple[str, ...] = ()
