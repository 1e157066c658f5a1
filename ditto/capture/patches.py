"""Patches of the captured copy of a model, with the transformers versions that need them."""

from __future__ import annotations

from typing import Any

from torch import nn

from ditto.errors import UnsupportedFeature

# Decoders of transformers before 4.53 that slice a window out of their mask with sizes that torch.export cannot bound
# (`max(length, window)`), and that pass the same window to their attention function.
_WINDOW_CUTTERS = frozenset({"Cohere2Model", "Gemma2Model", "Gemma3TextModel"})


def state_windows(module: nn.Module) -> None:
    """Disable the masks of decoders that slice windows out of them.

    Their attention function then applies the equivalent `is_causal` and `sliding_window` arguments. For transformers
    4.51 and 4.52: later versions create masks through a registry; remove the patch with support for these versions.
    `module` is a copy for capture, so the user's model is not modified.
    """
    for part in module.modules():
        if type(part).__name__ in _WINDOW_CUTTERS and hasattr(part, "_update_causal_mask"):
            object.__setattr__(part, "_update_causal_mask", _no_mask)


def _no_mask(*_: object, **__: object) -> None:
    return None


def freeze_rope_scaling(module: nn.Module, longest: int) -> None:
    """Freeze rotary frequencies that depend on the sequence length at those of sequences up to `longest`.

    Hugging Face recomputes `dynamic` and `longrope` frequencies in each forward, with a branch that torch.export cannot
    capture. Up to a length in the model's configuration, it always takes the same branch. For transformers 4.51 and
    later. `module` is a copy for capture, so the user's model is not modified.

    Raises:
        UnsupportedFeature: sequences may be longer, so that frequencies would change within a sequence.
    """
    for part in module.modules():
        kind: Any = getattr(part, "rope_type", None)
        if not isinstance(kind, str) or not ("dynamic" in kind or kind == "longrope"):
            continue
        known = _length_of_change(part)
        if longest > known:
            raise UnsupportedFeature(
                f"{kind} rope changes its frequencies in sequences of more than {known} tokens, "
                f"and sequences go up to {longest}",
                remedy=f"lower max_seq_len to {known}",
            )
        object.__setattr__(part, "rope_type", "default")


def _length_of_change(part: Any) -> int:
    """The sequence length up to which a rotary embedding keeps its initial frequencies."""
    config = part.config
    if part.rope_type != "longrope":
        return int(part.original_max_seq_len)
    stated = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    original = stated.get("original_max_position_embeddings")
    return int(original or getattr(config, "original_max_position_embeddings", config.max_position_embeddings))
