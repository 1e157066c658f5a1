"""Capture of attention as a single operator, whatever class the model uses.

Hugging Face looks up attention and mask functions by name in two registries (the second one since transformers 4.53).
Ditto's functions are registered as `ditto`. The mask function expands the requested mask into a bool tensor;
`rewrite/masks.py` classifies it later as causal, windowed or other, by its values.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from ditto import ops
from ditto.errors import ModelError, UnsupportedFeature
from ditto.ops.attention import AttentionArguments

IMPLEMENTATION = "ditto"
# The name for towers of packed images. As it contains "flash", their code calls attention once for all images, instead
# of once for each image, in a loop over lengths that torch.export cannot capture.
PACKED_IMPLEMENTATION = "ditto_flash"

# Arguments of attention functions that have no effect here: a captured forward has no cache, no gradient and no packed
# sequences, and some models pass on an argument that is for their output embedding.
_WITHOUT_EFFECT = frozenset(
    {
        "cache_position",
        "cu_seq_lens_k",
        "cu_seq_lens_q",
        "head_mask",
        "is_training",
        "layer_idx",
        "logits_to_keep",
        "max_length_k",
        "max_length_q",
        "output_attentions",
        "output_hidden_states",
        "output_router_logits",
        "position_embeddings",
        "position_ids",
        "return_dict",
        "use_cache",
    }
)


def attention_function(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    segments: Tensor | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """Attention function for Hugging Face's registry.

    Query is [B, H, S, D], key and value are [B, G, S, D], the result is [B, S, H, D]. `is_causal` and `sliding_window`
    apply only without a mask. `segments` is integer [S]: positions attend to those of the same segment, in addition to
    the mask. Boundaries of packed sequences (`cu_seq_lens_q`) have no effect: a captured tower runs on one image.

    Raises:
        UnsupportedFeature: the model passes an argument that is not supported here.
    """
    extra = sorted(name for name, given in more.items() if given is not None and name not in _WITHOUT_EFFECT)
    if extra:
        raise UnsupportedFeature(
            f"{type(module).__name__} gives its attention {', '.join(extra)}, which Ditto does not know",
            remedy="if it does not change the result, name it in `ditto/capture/attention.py`",
        )
    if dropout:
        raise ModelError(f"{type(module).__name__} drops attention weights", remedy="call `model.eval()` first")
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    bare = attention_mask is None
    # Masks of transformers 4.51 have a column for a future token; its own functions slice them in the same way.
    mask = None if attention_mask is None else attention_mask[..., : key.shape[-2]]
    if segments is not None:
        assert mask is None and not causal, "towers with segments have no other mask"
        mask = (segments[:, None] == segments)[None, None]
    attention = AttentionArguments(
        query=query,
        key=key,
        value=value,
        mask=mask,
        sinks=s_aux,
        scale=query.shape[-1] ** -0.5 if scaling is None else float(scaling),
        causal=bool(causal) and bare,
        window=(sliding_window or 0) if causal and bare else 0,
        softcap=float(softcap or 0.0),
        layer=int(getattr(module, "layer_idx", None) or 0),
    )
    result = ops.attention(*attention.args)
    return result.transpose(1, 2).contiguous(), None  # models may view it without a copy


def mask_function(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Tensor] | None = None,
    attention_mask: Tensor | None = None,
    device: torch.device | str | None = None,
    **_: Any,
) -> Tensor:
    """The requested mask, true where a query attends to a key: bool [batch or 1, 1, q_length, kv_length]."""
    queries = torch.arange(q_length, device=device) + q_offset
    keys = torch.arange(kv_length, device=device) + kv_offset
    rows = torch.arange(batch_size, device=device)[:, None, None, None]
    head = torch.zeros(1, dtype=torch.long, device=device)[None, :, None, None]
    assert mask_function is not None, "Hugging Face always names the mask it wants"
    seen = mask_function(rows, head, queries[None, None, :, None], keys[None, None, None, :])
    seen = seen.expand(-1, -1, q_length, kv_length)
    return seen if attention_mask is None else seen & attention_mask[:, None, None, :kv_length].bool()


def register() -> None:
    """Register both functions with Hugging Face; further calls have no effect."""
    from transformers.modeling_utils import AttentionInterface

    for name in (IMPLEMENTATION, PACKED_IMPLEMENTATION):
        AttentionInterface.register(name, attention_function)
    try:
        from transformers.masking_utils import AttentionMaskInterface
    except ImportError:  # before transformers 4.53, models build masks themselves
        return
    AttentionMaskInterface.register(IMPLEMENTATION, mask_function)


def use_semantic_attention(module: nn.Module) -> None:
    """Select Ditto's attention function in every Hugging Face model inside `module`.

    Classes that call `scaled_dot_product_attention` directly (CLIP before 4.53) are recognised later, by that operator.
    Classes without use of the registry write attention out, and get the masks that their own code adds to scores.
    """
    configs: list[tuple[nn.Module, Any]] = [(part, getattr(part, "config", None)) for part in module.modules()]
    owners = [(part, config) for part, config in configs if hasattr(config, "_attn_implementation")]
    for _, config in owners:
        config._attn_implementation = IMPLEMENTATION
    for part, config in owners:
        if "cu_seqlens" in signature(type(part).forward).parameters:
            config._attn_implementation = PACKED_IMPLEMENTATION
        elif type(part).__module__.startswith("transformers.") and not _uses_registry(part):
            config._attn_implementation = "eager"


def _uses_registry(part: Any) -> bool:
    """Whether a model's class looks its attention function up; transformers before 4.53 does not say."""
    return getattr(part, "_can_set_attn_implementation", lambda: True)()
