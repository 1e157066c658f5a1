"""From Hugging Face's parameter names to the checkpoint's: they differ between transformers versions."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any

from ditto.errors import CheckpointError


def match_names(model: Any, stored: Collection[str], where: str) -> dict[str, str]:
    """For each parameter and persistent buffer of a Hugging Face model, the checkpoint tensor that holds it.

    Parameters that share memory (tied embeddings) share the tensor of whichever of them is stored. Persistent buffers
    may be missing: the model computes them itself.

    Raises:
        CheckpointError: a parameter has no tensor, or needs several combined.
    """
    wanted = list(model.state_dict(keep_vars=True))
    rename = _renaming(model, frozenset(wanted))
    found: dict[str, str] = {}
    for name in sorted(stored):
        found.setdefault(rename(name), name)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    groups: dict[int, list[str]] = {}
    for name, parameter in parameters.items():
        groups.setdefault(id(parameter), []).append(name)
    for names in groups.values():
        holder = next((found[name] for name in names if name in found), None)
        if holder is not None:
            found.update(dict.fromkeys(names, holder))
    missing = [name for name in parameters if name not in found]
    if missing:
        raise CheckpointError(
            f"the checkpoint is incomplete: {len(missing)} parameters of {type(model).__name__} have no tensor, "
            f"e.g. `{missing[0]}`",
            where=where,
            remedy="download the checkpoint again, or check that config.json belongs to it",
        )
    return {name: found[name] for name in wanted if name in found}


def _renaming(model: Any, wanted: Collection[str]) -> Callable[[str], str]:
    """Hugging Face's own renaming of checkpoint names, where it has one (transformers 5), and the base's prefix."""
    prefix = getattr(model, "base_model_prefix", "")

    def with_prefix(name: str) -> str:
        if name in wanted or not prefix:
            return name
        shorter = re.sub(f"^{re.escape(prefix)}\\.", "", name, count=1)
        return shorter if shorter in wanted else f"{prefix}.{name}" if f"{prefix}.{name}" in wanted else name

    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key
    except ImportError:  # transformers 4 saves and loads under one name
        return with_prefix
    rules = get_model_conversion_mapping(model)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]

    def renamed(name: str) -> str:
        new, pattern = rename_source_key(name, renamings, converters, prefix, dict.fromkeys(wanted, True))
        if pattern is not None:
            raise CheckpointError(
                f"`{name}` is stored in another form than {type(model).__name__} holds it in",
                remedy="load the model with transformers and save it again with `save_pretrained`",
            )
        return new if new in wanted else with_prefix(name)

    return renamed
