"""Changes to a captured copy of someone else's model, each with the version it is for and when it may go."""

from __future__ import annotations

from torch import nn

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
