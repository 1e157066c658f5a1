"""Tiny random models of the real Hugging Face classes, the same for transformers 4.51 and 5."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import nn
from transformers import (
    CLIPVisionConfig,
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SiglipVisionConfig,
)

TRANSFORMERS_5 = int(transformers.__version__.split(".")[0]) >= 5

TEXT: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 128,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
VISION: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "image_size": 28,
    "patch_size": 7,
}


def rope(theta: float = 10000.0, **scaling: Any) -> dict[str, Any]:
    """Rotary embedding's settings, under the names of the installed transformers."""
    if TRANSFORMERS_5:
        return {"rope_parameters": {"rope_type": "default", "rope_theta": theta, **scaling}}
    return {"rope_theta": theta, **({"rope_scaling": scaling} if scaling else {})}


def made(cls: type[nn.Module], config: Any, seed: int = 0) -> Any:
    """A model with weights large enough that every part of it shows in the output."""
    torch.manual_seed(seed)
    model = cls(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1 and "norm" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
            elif parameter.dim() > 1:
                parameter.copy_(torch.randn_like(parameter) * parameter.shape[-1] ** -0.5)
            else:
                parameter.copy_(0.2 * torch.randn_like(parameter))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(0.2 * torch.randn_like(buffer))
            elif name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand_like(buffer))
    if getattr(config.get_text_config(), "tie_word_embeddings", False):
        model.tie_weights()
    return model


def llama(**settings: Any) -> Any:
    """A Llama; settings of its configuration override the tiny ones."""
    return made(LlamaForCausalLM, LlamaConfig(**{**TEXT, **rope(), **settings}))


LLAMA3_ROPE = rope(
    rope_type="llama3",
    factor=4.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=32,
)
LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0 + 0.1 * i for i in range(8)],
    "long_factor": [2.0 + 0.1 * i for i in range(8)],
    "factor": 2.0,
    "original_max_position_embeddings": 32,
}
GEMMA2 = {
    "head_dim": 32,
    "sliding_window": 5,
    "query_pre_attn_scalar": 24,
    "attn_logit_softcapping": 3.0,
    "final_logit_softcapping": 2.0,
}

# Text models by what is special about them.
TEXT_MODELS: dict[str, Callable[[], Any]] = {
    "llama": llama,
    "llama with one KV head per query head": lambda: llama(num_key_value_heads=4),
    "llama with a single KV head": lambda: llama(num_key_value_heads=1),
    "llama with tied embeddings": lambda: llama(tie_word_embeddings=True),
    "llama with attention and MLP biases": lambda: llama(attention_bias=True, mlp_bias=True),
    "llama with llama3 rope scaling": lambda: llama(**LLAMA3_ROPE),
    "llama with linear rope scaling": lambda: llama(**rope(rope_type="linear", factor=2.0)),
    "mistral with a window": lambda: made(MistralForCausalLM, MistralConfig(**TEXT, sliding_window=5, **rope())),
    "qwen2": lambda: made(Qwen2ForCausalLM, Qwen2Config(**TEXT, **rope())),
    "qwen3": lambda: made(Qwen3ForCausalLM, Qwen3Config(**TEXT, head_dim=32, **rope())),
    "gemma2 with soft-caps and windows": lambda: made(Gemma2ForCausalLM, Gemma2Config(**TEXT, **GEMMA2, **rope())),
    "phi3": lambda: made(Phi3ForCausalLM, Phi3Config(**TEXT, **rope())),
    "phi3 with a window": lambda: made(Phi3ForCausalLM, Phi3Config(**TEXT, sliding_window=5, **rope())),
}


def llava(vision: Any = None, seed: int = 0, text: dict[str, Any] | None = None, **settings: Any) -> Any:
    """A LLaVA; `vision` replaces the CLIP tower's configuration."""
    config = LlavaConfig(
        vision_config=vision or CLIPVisionConfig(**VISION, projection_dim=48),
        text_config=LlamaConfig(**{**TEXT, **rope(), **(text or {})}),
        **{"image_token_index": 127, **settings},
    )
    return made(LlavaForConditionalGeneration, config, seed)


# LLaVAs by what is special about them.
LLAVA_MODELS: dict[str, Callable[[], Any]] = {
    "last layer": lambda: llava(vision_feature_layer=-1),
    "last but one layer": lambda: llava(vision_feature_layer=-2),
    "several layers": lambda: llava(vision_feature_layer=[-2, -1]),
    "several layers, all tokens": lambda: llava(vision_feature_layer=[0, 2], vision_feature_select_strategy="full"),
    "all tokens": lambda: llava(vision_feature_select_strategy="full"),
    "siglip": lambda: llava(SiglipVisionConfig(**VISION), vision_feature_select_strategy="full"),
    "siglip, first token dropped": lambda: llava(SiglipVisionConfig(**VISION), vision_feature_layer=-1),
    "projector without bias": lambda: llava(multimodal_projector_bias=False),
    "projector with relu": lambda: llava(projector_hidden_act="relu"),
}


def image_features(model: Any, pixel_values: torch.Tensor) -> torch.Tensor:
    """Hugging Face's own image features: [images, tokens, width]."""
    config = model.config
    with torch.no_grad():
        features = model.get_image_features(
            pixel_values=pixel_values,
            vision_feature_layer=config.vision_feature_layer,
            vision_feature_select_strategy=config.vision_feature_select_strategy,
        )
    return torch.stack(list(getattr(features, "pooler_output", features)))
