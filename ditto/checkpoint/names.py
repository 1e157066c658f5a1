"""Mapping of Hugging Face's parameter names to a checkpoint's tensor names.

The names differ between transformers versions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

from torch import nn

from ditto.checkpoint.formats import check_marks
from ditto.checkpoint.leftovers import check_leftovers
from ditto.checkpoint.quantization import Group
from ditto.checkpoint.reader import CheckpointReader
from ditto.checkpoint.recipes import Recipe, places_of, recipe_of
from ditto.errors import CheckpointError


def match_names(
    model: Any, reader: CheckpointReader, groups: Mapping[str, Group] | None = None
) -> dict[str, str | Recipe]:
    """Checkpoint tensor, or recipe of several, of each parameter and persistent buffer of a model.

    The model is one of Hugging Face's. Tied parameters get the tensors that the installed transformers would load;
    where transformers unties them, so does this function. Persistent buffers may be missing: the model computes them
    itself.

    Args:
        groups: quantised weights, each in place of its stored tensors, by the names of float tensors.
    Raises:
        CheckpointError: a parameter has no tensor, has two, or is stored in a form without a recipe; or a tensor
            without a parameter belongs to a module in use (see `check_leftovers`).
    """
    stored, where, quantised = reader.index.tensors, str(reader.index.directory), groups or {}
    members = {name for group in quantised.values() for name in group.members}
    for name in sorted(quantised.keys() & stored.keys() - members):
        raise CheckpointError(
            f"The checkpoint holds `{name}` twice: as it is, and quantised.",
            where=where,
            remedy="remove one of them, as the configuration says",
        )
    wanted = model.state_dict(keep_vars=True)
    rename = _renaming(model, wanted)
    found: dict[str, str] = {}
    leftovers: dict[str, str] = {}
    slices: dict[str, dict[str, list[str]]] = {}
    rules: dict[str, Any] = {}
    for name in sorted((stored.keys() - members) | quantised.keys()):
        place, pattern, rule = rename(name)
        if place in wanted and rule is not None:
            for each in places_of(rule, place):
                slices.setdefault(each, {}).setdefault(pattern, []).append(name)
                rules[each] = rule
        elif place not in wanted:
            leftovers[name] = place
        elif place in found:
            raise CheckpointError(
                f"The checkpoint holds `{place}` of {type(model).__name__} twice: as `{found[place]}` and as `{name}`.",
                where=where,
                remedy="load the model with transformers and save it again with `save_pretrained`",
            )
        else:
            found[place] = name
    for place in sorted(found.keys() & slices.keys()):
        raise CheckpointError(
            f"The checkpoint holds `{place}` of {type(model).__name__} twice: as it is, and in slices.",
            where=where,
            remedy="remove one of them",
        )
    _share_tied(model, found, reader, quantised)

    def fits(place: str, name: str) -> bool:
        shape = quantised[name].quantized.shape if name in quantised else stored[name].shape
        return shape == tuple(wanted[place].shape)

    recipes = {
        place: recipe_of(rules[place], place, names, where, partial(fits, place), model.config)
        for place, names in slices.items()
        if place in wanted
    }
    whole: dict[str, str | Recipe] = {**found, **recipes}
    missing = [name for name, _ in model.named_parameters(remove_duplicate=False) if name not in whole]
    if missing:
        check_marks(leftovers, where)
        raise CheckpointError(
            f"the checkpoint is incomplete: {len(missing)} parameters of {type(model).__name__} have no tensor, "
            f"e.g. `{missing[0]}`",
            where=where,
            remedy="check that config.json belongs to this checkpoint, and that all of its files are there",
        )
    check_leftovers(model, leftovers, stored, where)
    return {name: whole[name] for name in wanted if name in whole}


def _share_tied(model: Any, found: dict[str, str], reader: CheckpointReader, quantised: Collection[str]) -> None:
    """Share stored tensors between tied parameters; untie what transformers unties."""
    groups: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), []).append(name)
    tied, unties = _tied(model), hasattr(model, "all_tied_weights_keys")
    for names in groups.values():
        held = sorted((name for name in names if name in found), key=lambda name: name in tied)
        if not held:
            continue
        holder, *others = held
        unequal = [
            name
            for name in others
            if {found[holder], found[name]} & set(quantised) or reader.differ(found[holder], found[name])
        ]
        if not tied.issuperset(unequal):
            raise CheckpointError(
                f"`{found[holder]}` and `{found[unequal[0]]}` differ, and {type(model).__name__} has one parameter for "
                "both.",
                where=str(reader.index.directory),
                remedy="check that config.json belongs to this checkpoint",
            )
        untied = unequal if unties else []
        for name in untied:
            _untie(model, name)
        found.update({name: found[holder] for name in names if name not in untied})


def _tied(model: Any) -> frozenset[str]:
    """Names of the parameters that transformers ties to others."""
    expanded = getattr(model, "all_tied_weights_keys", None)
    if expanded is not None:  # transformers 5, which does not tie parameters that differ in the checkpoint
        return frozenset(expanded)
    patterns = getattr(model, "_tied_weights_keys", None) or ()
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    return frozenset(name for name in names if any(re.search(pattern, name) for pattern in patterns))


def _untie(model: Any, name: str) -> None:
    """Replace a tied parameter with a copy of its own."""
    owner, _, attribute = name.rpartition(".")
    parameter = model.get_parameter(name)
    own = nn.Parameter(parameter.detach().clone(), requires_grad=False)
    model.get_submodule(owner).register_parameter(attribute, own)


Renaming = Callable[[str], "tuple[str, str, Any]"]


def _renaming(model: Any, wanted: Collection[str]) -> Renaming:
    """Renaming of checkpoint tensors to the model's names.

    Uses Hugging Face's own rules (transformers 5 only), then the prefix of the base model. For a tensor that is a part
    of a parameter, it also returns the rule that puts the parts together, and the rule's pattern for this one.
    """
    prefix = getattr(model, "base_model_prefix", "")

    def with_prefix(name: str) -> str:
        if name in wanted or not prefix:
            return name
        shorter = re.sub(f"^{re.escape(prefix)}\\.", "", name, count=1)
        return shorter if shorter in wanted else f"{prefix}.{name}" if f"{prefix}.{name}" in wanted else name

    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key
    except ImportError:  # transformers 4 saves and loads under the same names
        return lambda name: (with_prefix(name), "", None)
    rules = get_model_conversion_mapping(model)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]

    def renamed(name: str) -> tuple[str, str, Any]:
        new, pattern = rename_source_key(name, renamings, converters, prefix, dict.fromkeys(wanted, True))
        place = new if new in wanted else with_prefix(name if pattern is None else new)
        if pattern is None:
            return place, "", None
        rule = next(rule for rule in converters if pattern in rule.source_patterns)
        return place, pattern, rule

    return renamed
