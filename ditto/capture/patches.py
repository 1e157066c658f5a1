"""Patches of the captured copy of a model, with the transformers versions that need them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

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
        _freeze_attention_factor(part)


def _freeze_attention_factor(part: Any) -> None:
    """State the factor of cosines and sines that a rotary embedding (Phimoe) else chooses by the largest position."""
    stated = getattr(part.config, "rope_parameters", None) or {}
    if "short_mscale" not in stated:
        return
    frequencies, _ = part.rope_init_fn(part.config)
    frozen = frequencies, stated["short_mscale"]
    config = copy.copy(part.config)
    config.rope_parameters = {**stated, "rope_type": "default"}
    object.__setattr__(part, "config", config)
    object.__setattr__(part, "rope_init_fn", lambda _: frozen)


def select_mrope_columns(module: nn.Module) -> None:
    """Compose the cosines and sines of multimodal rope (m-rope) by one selection of columns.

    Each column is that of one of the position axes. Which one depends on the model: sections in a row, interleaved,
    or repeated. Interleaved ones are written into other tensors, which a captured program cannot do. For transformers
    5. `module` is a copy for capture, so the user's model is not modified.
    """
    for part in module.modules():
        compose: Any = getattr(part, "recomposition_frequencies", None)
        sections: Any = getattr(part, "mrope_section", None)
        if compose is None or sections is None:
            continue
        if not isinstance(sections, dict):
            selected = _selected(compose, getattr(part, "inv_freq", None), len(sections))
        else:  # of each kind of layers
            of_kinds = {
                kind: found
                for kind, own in sections.items()
                if (
                    found := _selected(
                        partial(compose, layer_type=kind), getattr(part, f"{kind}_inv_freq", None), len(own)
                    )
                )
            }
            selected = partial(_selected_of_kind, of_kinds) if len(of_kinds) == len(sections) else None
        if selected is not None:
            object.__setattr__(part, "recomposition_frequencies", selected)


def _selected(compose: Callable[[Tensor], Tensor], columns: Tensor | None, axes: int) -> _Selected | None:
    """The selection that a composition is; None if it does something else."""
    if columns is None:
        return None
    numbers = torch.arange(axes * len(columns), dtype=torch.float32).view(axes, 1, 1, -1)
    selected = _Selected(compose(numbers.clone()).flatten().long())
    other = numbers.sin()
    return selected if torch.equal(selected(other), compose(other.clone())) else None


def _selected_of_kind(of_kinds: Mapping[str, _Selected], of_axes: Tensor, layer_type: str) -> Tensor:
    return of_kinds[layer_type](of_axes)


class _Selected:
    """Composition of m-rope's columns: [axes, B, S, columns] → [B, S, width].

    Args:
        chosen: int64 [width], the column of each result, counted over all axes.
    """

    def __init__(self, chosen: Tensor) -> None:
        self.chosen = chosen

    def __call__(self, of_axes: Tensor) -> Tensor:
        return of_axes.permute(1, 2, 0, 3).flatten(2).index_select(2, self.chosen)


def add_deepstack_rows(module: nn.Module) -> None:
    """Add deepstack embeddings to hidden states as one sum.

    Hugging Face adds them to the hidden states of image tokens only, which it finds by their values. Ditto's wrapper
    states them for all tokens, 0 for text. For transformers 5. `module` is a copy for capture, so the user's model is
    not modified.
    """
    for part in module.modules():
        if hasattr(part, "_deepstack_process"):
            object.__setattr__(part, "_deepstack_process", _with_rows)


def _with_rows(hidden_states: Tensor, visual_pos_masks: Tensor, visual_embeds: Tensor) -> Tensor:
    del visual_pos_masks
    return hidden_states + visual_embeds


def _length_of_change(part: Any) -> int:
    """The sequence length up to which a rotary embedding keeps its initial frequencies."""
    config = part.config
    if part.rope_type != "longrope":
        return int(part.original_max_seq_len)
    stated = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    original = stated.get("original_max_position_embeddings")
    return int(original or getattr(config, "original_max_position_embeddings", config.max_position_embeddings))
