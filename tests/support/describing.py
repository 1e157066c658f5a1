"""The engines of a builder, described but not compiled, and parts of models that do not exist."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ditto.arguments import DynamicDimension, TensorTypeHint
from ditto.builders import EngineBuilder
from ditto.builders.describe import Described, describe
from ditto.configs import Limits
from ditto.targets import DecoderConfig, LanguagePart, Target, VisionPart


def engines_of(builder: EngineBuilder, chosen: Target | None = None) -> dict[str, Described]:
    """Its engines by name.

    Args:
        chosen: a target whose library may be missing; None for the builder's own.
    """
    found = builder.resolved_target() if chosen is None else chosen
    return {each.spec.name: each for each in describe(builder.part(found), found, builder.build_settings)}


def engine_of(builder: EngineBuilder) -> Described:
    """Its first engine."""
    return next(iter(engines_of(builder).values()))


def language_part(limits: Limits) -> LanguagePart:
    """A language model of which only the limits matter."""
    decoder = DecoderConfig(
        architecture="LlamaForCausalLM",
        vocab_size=128,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_size=16,
        intermediate_size=96,
        hidden_act="silu",
        norm_epsilon=1e-6,
        max_position_embeddings=64,
        position_embedding_type="rope_gpt_neox",
        rotary_embedding_dim=16,
        qk_layernorm=False,
        extra={},
    )
    return LanguagePart(name="llm", output_names=("logits",), inputs={}, decoder=decoder, limits=limits, **_COMMON)


def vision_part(*dimensions: DynamicDimension) -> VisionPart:
    """A vision tower of which only the dynamic dimensions matter."""
    inputs = {"input": TensorTypeHint((*dimensions, 3, 28, 28), torch.float16)}
    return VisionPart(
        name="vision",
        output_names=("encoder_output",),
        inputs=inputs,
        model_type="llava",
        max_images=1,
        tokens_per_image=None,
        **_COMMON,
    )


_COMMON: dict[str, Any] = {
    "wrapper": nn.Identity(),
    "dtype": torch.float16,
    "sizes": {},
    "weight_of": None,
    "tensors": None,
    "keeps_weights": False,
}
