"""Builder of the engine of a vision tower and its projector."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from attrs import evolve, field, frozen
from torch import nn
from typing_extensions import Self, override

from ditto.arguments import DynamicDimension, TensorTypeHint
from ditto.builders.engine import EngineBuilder, itself
from ditto.engine import NEWLINE, NEWLINE_FILE, Assembly, TreeLimits
from ditto.errors import ConfigError
from ditto.targets import Target, VisionPart
from ditto.wrappers.features import image_newline


@frozen(kw_only=True, slots=False)
class VisionBuilder(EngineBuilder):
    """Settings of a vision engine.

    Args:
        family: Hugging Face's name of the family, as TensorRT-LLM's multimodal runner expects it.
        inputs: inputs of the wrapper, by name and in order. A first axis that is a `DynamicDimension` is the batch and
            follows `max_batch_size`; float16 stands for the engine's `dtype`.
        output_names: output names of the wrapper.
        wrap: function that creates the wrapper from the model; returns the model itself if it is already a wrapper.
        tokens_per_image: image tokens that the language model expects of an image, or of one tile of it; None if it is
            unknown, or depends on the inputs.
        assembly: how the embeddings of tiles become those of an image; None if they are those of an image.
    """

    name: ClassVar[str] = "vision"

    family: str
    inputs: Mapping[str, TensorTypeHint]
    output_names: tuple[str, ...] = ("encoder_output",)
    wrap: Callable[[nn.Module], nn.Module] = field(default=itself)
    tokens_per_image: int | None = None
    assembly: Assembly | None = None

    def with_dimension(self, dimension: DynamicDimension) -> Self:
        """Accept another range of sizes of a dynamic dimension."""
        return evolve(self, inputs={name: _with_dimension(hint, dimension) for name, hint in self.inputs.items()})

    @override
    def with_batch(self, maximum: int) -> Self:
        grown = super().with_batch(maximum)
        return evolve(grown, inputs={name: _with_batch(hint, maximum) for name, hint in self.inputs.items()})

    @override
    def part(self, target: Target) -> VisionPart:
        target.check_family(self.family, self.assembly, tuple(self.inputs))
        loaded = self.source.load(self.resolved_dtype(target))
        wrapper = self.wrap(loaded.model)
        newline = None if self.assembly is None else loaded.weights[id(image_newline(loaded.model))]
        inputs = {
            name: evolve(hint, dtype=loaded.dtype) if hint.dtype == torch.float16 else hint
            for name, hint in self.inputs.items()
        }
        return VisionPart(
            name=self.name,
            wrapper=wrapper,
            inputs=inputs,
            output_names=self.output_names,
            dtype=loaded.dtype,
            sizes={size.name: size.max for hint in inputs.values() for size in hint.dynamic.values()},
            weight_of=loaded.weight_of(wrapper),
            tensors=loaded.tensors,
            keeps_weights=self.source.checkpoint is None,
            model_type=self.family,
            max_images=self.max_batch_size,
            tokens_per_image=self.tokens_per_image,
            assembly=self.assembly,
            files={} if newline is None else {NEWLINE_FILE: {NEWLINE: newline}},
        )

    @property
    @override
    def model_type(self) -> str:
        return self.family

    @override
    def tree_limits(self, target: Target) -> TreeLimits:
        del target
        return TreeLimits(max_images=self.max_batch_size)

    @override
    def settings(self) -> dict[str, Any]:
        return {"max_batch_size": self.max_batch_size, **super().settings()}


def _with_dimension(hint: TensorTypeHint, dimension: DynamicDimension) -> TensorTypeHint:
    def named(size: int | DynamicDimension) -> bool:
        return isinstance(size, DynamicDimension) and size.name == dimension.name

    return evolve(hint, shape=[dimension if named(size) else size for size in hint.shape])


def _with_batch(hint: TensorTypeHint, maximum: int) -> TensorTypeHint:
    batch = hint.shape[0]
    if not isinstance(batch, DynamicDimension):
        raise ConfigError("the vision input has no batch axis", remedy="make its first axis a DynamicDimension")
    # TensorRT-LLM's own towers are optimized for half the batch, rounded down (contract, multimodal 3.1).
    grown = DynamicDimension(batch.name, 1, max(1, maximum // 2), maximum)
    return evolve(hint, shape=(grown, *hint.shape[1:]))
