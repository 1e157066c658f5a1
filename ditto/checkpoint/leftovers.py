"""Checkpoint tensors without a parameter in the model: allowed, or an error."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ditto.checkpoint.formats import check_marks, named
from ditto.checkpoint.index import TensorRecord
from ditto.errors import CheckpointError

# Tensors that may always be unused, and why.
_ON_PURPOSE = {
    r"(^|\.)rotary_emb\.(\w+_)?inv_freq$": "the model computes rotary frequencies itself",
    r"(^|\.)rotary_emb\.(cos|sin)_cached$": "the model computes rotary tables itself",
    r"(^|\.)position_ids$": "a count from 0",
    r"(^|\.)(attn|attention)\.masked_bias$": "the score of a masked position",
    r"(^|\.)vision_model\.head\.": "SigLIP's pooling head, whose result image features do not depend on",
}
# A causal mask may be unused, too: it is named like a bias and has the shape [1, 1, positions, positions].
_MASK = re.compile(r"(^|\.)(attn|attention|crossattention)\.bias$")


def check_leftovers(model: Any, leftovers: Mapping[str, str], records: Mapping[str, TensorRecord], where: str) -> None:
    """Check stored tensors that match no parameter or buffer of a Hugging Face model.

    Complete components that the model lacks are allowed (a draft model, the other half of a multimodal model); they are
    listed as unused. A tensor in the same module as a used one, or inside one of the model's layers, would change the
    result.

    Args:
        leftovers: for each unmatched tensor, its path in the model.
        records: header entries of the stored tensors by name.
    Raises:
        CheckpointError: at least one of them may not be ignored.
    """
    ignored = [*_ON_PURPOSE, *_ignored_by_transformers(model)]
    modules = dict(model.named_modules(remove_duplicate=False))
    stray = [
        name
        for name, place in leftovers.items()
        if not any(re.search(pattern, text) for pattern in ignored for text in (name, place))
        and not _is_mask(name, records)
        and _is_within(modules, place)
    ]
    if not stray:
        return
    check_marks(stray, where)
    raise CheckpointError(
        f"{type(model).__name__} has no place for {named(stray)}, which the checkpoint has beside tensors in use.",
        where=where,
        remedy="check that config.json belongs to this checkpoint and states all that its class computes (biases, "
        "norms, experts); a checkpoint of another class is not supported",
    )


def _is_mask(name: str, records: Mapping[str, TensorRecord]) -> bool:
    shape = records[name].shape if name in records else ()
    return bool(_MASK.search(name)) and len(shape) == 4 and shape[:2] == (1, 1) and shape[2] == shape[3]


def _is_within(modules: Mapping[str, Any], place: str) -> bool:
    """Whether a tensor belongs to a module with parameters or to a layer.

    Otherwise it belongs to a component that the model lacks.
    """
    owner = place
    while owner not in modules:
        owner = owner.rpartition(".")[0]
    module = modules[owner]
    if any(True for _ in module.parameters(recurse=False)):
        return True
    in_layer = any(part.isdigit() for part in owner.split("."))
    return in_layer or not (not owner or _is_whole_model(module) or _is_list(module))


def _is_whole_model(module: Any) -> bool:
    return hasattr(module, "base_model_prefix")


def _is_list(module: Any) -> bool:
    from torch import nn

    return isinstance(module, nn.ModuleList)


def _ignored_by_transformers(model: Any) -> list[str]:
    """Name patterns of tensors that Hugging Face's model classes declare as unused."""
    return [
        pattern
        for module in model.modules()
        for pattern in getattr(module, "_keys_to_ignore_on_load_unexpected", None) or ()
    ]
