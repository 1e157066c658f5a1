"""Changes to a captured copy of someone else's model, each with the version it is for and when it may go."""

from __future__ import annotations

from typing import Any

from torch import nn

from ditto.errors import UnsupportedFact

# Decoders of transformers before 4.53 that cut a window out of their mask by sizes that torch.export cannot bound
# (`max(length, window)`), and that state the same window to their attention function.
_WINDOW_CUTTERS = frozenset({"Cohere2Model", "Gemma2Model", "Gemma3TextModel"})


def state_windows(module: nn.Module) -> None:
    """Let decoders that cut windows out of a mask make no mask: what their attention sees then follows from the
    `is_causal` and `sliding_window` that they state to it, which is the same.

    For transformers 4.51 and 4.52; later ones make masks through a registry. May go with them. `module` is a copy made
    for capture: the user's model is not touched.
    """
    for part in module.modules():
        if type(part).__name__ in _WINDOW_CUTTERS and hasattr(part, "_update_causal_mask"):
            object.__setattr__(part, "_update_causal_mask", _no_mask)


def _no_mask(*_: object, **__: object) -> None:
    return None


def settle_rope(module: nn.Module, longest: int) -> None:
    """Let rotary embeddings whose frequencies depend on how long a sequence is keep those of sequences up to `longest`.

    Hugging Face computes `dynamic` and `longrope` frequencies anew in each forward, by a choice that torch.export
    cannot capture. Up to a length that the model states, the choice is always the same. For transformers 4.51 and
    later. `module` is a copy made for capture: the user's model is not touched.

    Raises:
        UnsupportedFact: sequences may be longer, so that the choice would change in the middle of one.
    """
    for part in module.modules():
        kind: Any = getattr(part, "rope_type", None)
        if not isinstance(kind, str) or not ("dynamic" in kind or kind == "longrope"):
            continue
        known = _length_of_change(part)
        if longest > known:
            raise UnsupportedFact(
                f"{kind} rope changes its frequencies in sequences of more than {known} tokens, "
                f"and sequences go up to {longest}",
                remedy=f"lower max_seq_len to {known}",
            )
        object.__setattr__(part, "rope_type", "default")


def _length_of_change(part: Any) -> int:
    """Tokens up to which a rotary embedding keeps the frequencies that it starts with."""
    config = part.config
    if part.rope_type != "longrope":
        return int(part.original_max_seq_len)
    stated = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    original = stated.get("original_max_position_embeddings")
    return int(original or getattr(config, "original_max_position_embeddings", config.max_position_embeddings))
