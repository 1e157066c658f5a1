"""Capture of mixtures of experts as semantic operators, whatever class the model uses.

Hugging Face (transformers 5) looks up the function that applies experts in a registry, by name. Ditto's is registered
as `ditto`. Routing before it, and the activation between an expert's two layers, stay the model's own code.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ditto import ops
from ditto.errors import UnsupportedFeature

IMPLEMENTATION = "ditto"


def experts_function(module: Any, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
    """Experts function for Hugging Face's registry.

    T tokens, k choices of each, W hidden width.

    Args:
        module: the experts; it holds their weights.
        hidden_states: [T, W].
        top_k_index: integer [T, k], the chosen experts.
        top_k_weights: [T, k], their shares in the result.
    Raises:
        UnsupportedFeature: the experts do more than two linear layers with an activation in between.
    """
    if module.has_post_expert_norm or module._is_expert_parallel:
        raise UnsupportedFeature(
            f"{type(module).__name__} normalises the result of each expert, or spreads experts over devices",
            remedy="experts of two linear layers with an activation in between are supported",
        )
    up = module.gate_up_proj if module.has_gate else module.up_proj
    up_bias, down_bias = None, None
    if module.has_bias:
        up_bias, down_bias = (
            (module.gate_up_proj_bias if module.has_gate else module.up_proj_bias),
            module.down_proj_bias,
        )
    inner = ops.expert_linear(hidden_states, up, up_bias, top_k_index, module.is_transposed)
    inner = module._apply_gate(inner) if module.has_gate else module.act_fn(inner)
    return ops.expert_sum(inner, module.down_proj, down_bias, top_k_index, top_k_weights, module.is_transposed)


def register() -> None:
    """Register the function with Hugging Face; further calls have no effect."""
    try:
        from transformers.integrations.moe import ExpertsInterface
    except ImportError:  # before transformers 5, models loop over their experts themselves
        return
    ExpertsInterface.register(IMPLEMENTATION, experts_function)


def use_semantic_experts(module: nn.Module) -> None:
    """Select Ditto's experts function in every Hugging Face model inside `module`."""
    for part in module.modules():
        config = getattr(part, "config", None)
        if config is not None and hasattr(config, "_experts_implementation"):
            config._experts_implementation = IMPLEMENTATION
