"""Models of real shapes without a checkpoint: enough to capture and describe, not to compile."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor
from typing_extensions import override

from ditto.builders import ModelSource
from ditto.builders.source import Loaded
from ditto.capture import weightless
from ditto.network.weight import Stored


class NoTensors:
    """A source of tensors for networks that need none."""

    def tensor(self, name: str) -> Tensor:
        """There is none."""
        raise LookupError(f"{name}: this model has no weights")

    def release(self) -> None:
        """There is nothing to let go of."""


@frozen(slots=False, eq=False)
class Described(ModelSource):
    """A configuration and the class that goes with it.

    Args:
        cls: a Hugging Face model class.
        stated: its configuration.
    """

    cls: Any
    stated: Any
    name: str = field(default="a model without weights")

    @property
    @override
    def config(self) -> Any:
        return self.stated

    @property
    @override
    def generation_config(self) -> Mapping[str, Any]:
        return {}

    @property
    @override
    def dtype(self) -> torch.dtype:
        return torch.float16

    @property
    @override
    def checkpoint(self) -> None:
        return None

    @override
    def load(self, dtype: torch.dtype) -> Loaded:
        with weightless(dtype):
            model = self.cls(self.stated).eval()
        model.tie_weights()
        named = dict(model.named_parameters(remove_duplicate=False))
        weights = {id(part): Stored(name, tuple(part.shape), part.dtype) for name, part in named.items()}
        return Loaded(model, dtype, weights, NoTensors())

    @override
    def copy_processor(self, directory: Path) -> None:
        """There is none."""


def llava_7b() -> Described:
    """LLaVA-1.5-7B's shape."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    vision = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
        projection_dim=768,
    )
    text = LlamaConfig(vocab_size=32064, max_position_embeddings=4096)
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=32000, vision_feature_layer=-2)
    return Described(LlavaForConditionalGeneration, config, "LLaVA-1.5-7B's shape")


def llama_70b() -> Described:
    """Llama-2-70B's shape."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=8192,
        intermediate_size=28672,
        num_hidden_layers=80,
        num_attention_heads=64,
        num_key_value_heads=8,
        max_position_embeddings=4096,
    )
    return Described(LlamaForCausalLM, config, "Llama-2-70B's shape")
