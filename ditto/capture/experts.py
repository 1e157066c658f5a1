"""Capture of mixtures of experts as semantic operators, whatever class the model uses.

Hugging Face (transformers 5) looks up the function that applies experts in a registry, by name. Ditto's is registered
as `ditto`. Routing before it, and the activation between an expert's two layers, stay the model's own code. Classes
outside the registry, which loop over their experts, get functions of their own here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from inspect import signature
from typing import Any

import torch
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
    # Neither attribute exists in earlier versions of transformers 5, such as 5.17.
    if getattr(module, "has_post_expert_norm", False) or getattr(module, "_is_expert_parallel", False):
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
        own = _LOOPS.get((type(part).__module__, type(part).__name__))
        if own is not None and len(signature(type(part).forward).parameters) == _ARGUMENTS:
            object.__setattr__(part, "forward", partial(own, part))


def _dbrx_experts(module: Any, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
    """`DbrxExperts`, whose weights are one below the other: [B, S, W] → [B, S, W]."""
    layers = module.mlp
    shape = (module.num_experts, module.ffn_hidden_size, module.hidden_size)
    gate, up, down = (weight.view(shape) for weight in (layers.w1, layers.v1, layers.w2))
    tokens = hidden_states.reshape(-1, module.hidden_size)
    gated = layers.activation_fn(ops.expert_linear(tokens, gate, None, top_k_index, False))
    inner = gated * ops.expert_linear(tokens, up, None, top_k_index, False)
    return ops.expert_sum(inner, down, None, top_k_index, top_k_weights, True).view(hidden_states.shape)


def _longcat_experts(module: Any, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
    """`LongcatFlashExperts`, of which the last ones return the token as it is: [T, W] → [T, W]."""
    if module.gate_up_proj is None:
        return (hidden_states * top_k_weights.sum(-1, keepdim=True)).to(hidden_states.dtype)
    is_computed = top_k_index < module.num_routed_experts
    chosen = torch.where(is_computed, top_k_index, 0)
    shares = torch.where(is_computed, top_k_weights, 0.0)
    gate, up = ops.expert_linear(hidden_states, module.gate_up_proj, None, chosen, False).chunk(2, dim=-1)
    computed = ops.expert_sum(module.act_fn(gate) * up, module.down_proj, None, chosen, shares, False)
    unchanged = hidden_states * (top_k_weights - shares).sum(-1, keepdim=True)
    return computed + unchanged.to(hidden_states.dtype)


# By module and class. Classes of other versions of transformers, with other arguments, keep their own code.
_LOOPS: Mapping[tuple[str, str], Callable[[Any, Tensor, Tensor, Tensor], Tensor]] = {
    ("transformers.models.dbrx.modeling_dbrx", "DbrxExperts"): _dbrx_experts,
    ("transformers.models.longcat_flash.modeling_longcat_flash", "LongcatFlashExperts"): _longcat_experts,
}
_ARGUMENTS = 4  # module, hidden states, indices and weights of the chosen experts
