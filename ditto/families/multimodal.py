"""Vision-language models: two builders with consistent settings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from attrs import evolve, frozen
from torch import nn
from typing_extensions import Self

from ditto.arguments import DynamicDimension, TensorTypeHint
from ditto.builders import EngineBuilder, InMemory, LlmBuilder, ModelSource, Pretrained, VisionBuilder
from ditto.builders.pipeline import build
from ditto.configs import TensorRTConfig, TrtllmConfig
from ditto.engine import EngineTree
from ditto.errors import CheckpointError, at


@frozen(kw_only=True, slots=False)
class MultimodalModel(ABC):
    """Base class of vision-language families: both builders, configured together.

    A new family is a subclass with four short methods. `with_*` returns a copy and keeps both builders consistent; each
    builder can also be used alone.

    Args:
        llm, vision: builders of the language model and of the vision tower.
    """

    model_type: ClassVar[str]
    """Hugging Face's `model_type`, which the family's `vision/config.json` carries too."""

    llm: LlmBuilder
    vision: VisionBuilder

    @staticmethod
    @abstractmethod
    def vision_wrapper(model: nn.Module) -> nn.Module:
        """The module that becomes the vision engine: pixels → [images, tokens, width]."""

    @staticmethod
    @abstractmethod
    def pixel_shape(config: Any) -> tuple[int, int, int]:
        """Channels, height and width of one image."""

    @staticmethod
    @abstractmethod
    def tokens_per_image(config: Any) -> int:
        """Number of image tokens of one image."""

    @classmethod
    @abstractmethod
    def check_config(cls, config: Any) -> None:
        """Check that a configuration belongs to this family and is supported.

        Raises:
            CheckpointError, ConfigError: it does not, or is not.
        """

    @classmethod
    def from_pretrained(cls, model: str, *, revision: str | None = None) -> Self:
        """Settings for a model in a directory or on the hub.

        Raises:
            CheckpointError: the model does not exist, or belongs to another family.
        """
        return cls._from_source(Pretrained(str(model), "AutoModelForImageTextToText", revision))

    @classmethod
    def from_model(cls, model: nn.Module) -> Self:
        """Settings for a Hugging Face model in memory."""
        return cls._from_source(InMemory(model, getattr(model.config, "_name_or_path", "") or type(model).__name__))

    @classmethod
    def _from_source(cls, source: ModelSource) -> Self:
        config = source.config
        if config.model_type != cls.model_type:
            raise CheckpointError(
                f"this is a {config.model_type!r} model, not {cls.model_type!r}",
                where=source.name,
                remedy="use the family of its model type, or LlmBuilder for a text model",
            )
        with at(source.name):
            cls.check_config(config)
        images = DynamicDimension.up_to("batch", 1)
        hint = TensorTypeHint((images, *cls.pixel_shape(config)), torch.float16)
        tokens = cls.tokens_per_image(config)
        vision = VisionBuilder(
            source=source,
            family=cls.model_type,
            inputs={"input": hint},
            wrap=cls.vision_wrapper,
            tokens_per_image=tokens,
        )
        return cls(llm=LlmBuilder(source=source, prompt_rows=tokens), vision=vision)

    def with_batch(self, maximum: int) -> Self:
        """Accept 1 to `maximum` requests per call, with one image each.

        The prompt table grows with it.
        """
        return evolve(self, llm=self.llm.with_batch(maximum), vision=self.vision.with_batch(maximum))

    def with_vision_batch(self, maximum: int) -> Self:
        """Accept 1 to `maximum` images per call of the vision engine."""
        return evolve(self, vision=self.vision.with_batch(maximum))

    def with_dtype(self, dtype: torch.dtype | str) -> Self:
        """Compute in `dtype`: float32, float16, bfloat16, or `auto` for the model's own."""
        return evolve(self, llm=self.llm.with_dtype(dtype), vision=self.vision.with_dtype(dtype))

    def with_target(self, name: str) -> Self:
        """Build for a target: `trtllm`, `tensorrt`, `tensorrt-rtx`, or `auto`."""
        return evolve(self, llm=self.llm.with_target(name), vision=self.vision.with_target(name))

    def with_compute_capabilities(self, *capabilities: str) -> Self:
        """Build for these GPUs, e.g. `8.9`; without any, build a portable engine."""
        return evolve(
            self,
            llm=self.llm.with_compute_capabilities(*capabilities),
            vision=self.vision.with_compute_capabilities(*capabilities),
        )

    def with_optimize(self, preset: str) -> Self:
        """Use a preset: `portable` (default), `latency` or `size`; settings that are stated win over it."""
        return evolve(self, llm=self.llm.with_optimize(preset), vision=self.vision.with_optimize(preset))

    def with_weights(self, place: str) -> Self:
        """Embed the weights (`embedded`) or pass large ones as inputs (`external`)."""
        return evolve(self, llm=self.llm.with_weights(place), vision=self.vision.with_weights(place))

    def with_engines(self, layout: str) -> Self:
        """Run prefill and decode in one engine (`combined`) or in one each (`separate`)."""
        return evolve(self, llm=self.llm.with_engines(layout), vision=self.vision.with_engines(layout))

    def with_profiles(self, kind: str) -> Self:
        """Use one profile for all shapes of a phase (`dynamic`), or also static ones (`specialized`)."""
        return evolve(self, llm=self.llm.with_profiles(kind), vision=self.vision.with_profiles(kind))

    def with_tuning(self, tuning: str) -> Self:
        """Use the forms that are fast on a compute capability, e.g. `9.0`; `auto`, or `none`."""
        return evolve(self, llm=self.llm.with_tuning(tuning), vision=self.vision.with_tuning(tuning))

    def with_tensorrt(self, config: TensorRTConfig) -> Self:
        """Use `config` for TensorRT's own settings."""
        return evolve(self, llm=self.llm.with_tensorrt(config), vision=self.vision.with_tensorrt(config))

    def with_trtllm(self, config: TrtllmConfig) -> Self:
        """Use `config` for TensorRT-LLM's version and options (target `trtllm`)."""
        return evolve(self, llm=self.llm.with_trtllm(config), vision=self.vision.with_trtllm(config))

    def with_max_input_len(self, maximum: int) -> Self:
        """Accept prompts of up to `maximum` tokens, image tokens included."""
        return evolve(self, llm=self.llm.with_max_input_len(maximum))

    def with_max_seq_len(self, maximum: int) -> Self:
        """Support up to `maximum` tokens per sequence, prompt and answer together."""
        return evolve(self, llm=self.llm.with_max_seq_len(maximum))

    def with_max_num_tokens(self, maximum: int) -> Self:
        """Accept up to `maximum` tokens per call over the whole batch (packed targets)."""
        return evolve(self, llm=self.llm.with_max_num_tokens(maximum))

    def with_opt_input_len(self, typical: int) -> Self:
        """Optimize for prompts of at most `typical` tokens and not far below that.

        0 for no typical length.
        """
        return evolve(self, llm=self.llm.with_opt_input_len(typical))

    def with_prompt_table(self, rows: int) -> Self:
        """Accept `rows` image tokens over the batch, e.g. several images per request."""
        return evolve(self, llm=self.llm.with_prompt_table(rows))

    @property
    def builders(self) -> dict[str, EngineBuilder]:
        """The builders, by the directory of their component."""
        return {"vision": self.vision, "llm": self.llm}

    def build_all(self, out: str | Path, *, force: bool = False) -> EngineTree:
        """Build both engines into one tree.

        Args:
            force: rebuild both even if the existing tree has identical engines.
        Raises:
            DittoError: the build failed; `out` is unchanged.
        """
        return build(self.builders, out, force=force)


def pair(name: str, size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width from an image or patch size of one number or two.

    Raises:
        CheckpointError: the size is neither.
    """
    if isinstance(size, int):
        return size, size
    if len(size) == 2:
        return size[0], size[1]
    raise CheckpointError(f"`vision_config.{name}` is {size!r}", remedy="give one number, or height and width")
