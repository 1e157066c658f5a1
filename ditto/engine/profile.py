"""Optimization profiles: the ranges of shapes that an engine is tuned for, and what each is for."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from attrs import field, frozen
from cattrs import Converter

from ditto.arguments import DynamicDimension


class Phase(str, Enum):
    """What a call of an engine computes."""

    ENCODE = "encode"
    """Images → image embeddings."""

    PREFILL = "prefill"
    """Prompts, whose rows of the KV cache are empty, → logits."""

    DECODE = "decode"
    """One new token of each row → logits."""

    MIXED = "mixed"
    """Packed tokens of prompts and of running sequences in one call → logits."""


def _by_name(ranges: Mapping[str, DynamicDimension]) -> dict[str, DynamicDimension]:
    return dict(ranges)


@frozen
class Profile:
    """An optimization profile: the ranges of named dimensions that an engine is tuned for at once.

    Args:
        phase: what calls on this profile compute.
        ranges: by dimension name.
    """

    phase: Phase
    ranges: dict[str, DynamicDimension] = field(converter=_by_name)

    def size(self, dimension: str) -> int | None:
        """The only size of a dimension that the profile accepts, None where there are several or the engine has no such
        dimension."""
        known = self.ranges.get(dimension)
        return known.max if known is not None and known.min == known.max else None

    def ranges_text(self) -> str:
        """All ranges on one line, e.g. `batch 1 to 4 (tuned for 2)`."""
        ranges = self.ranges.items()
        return ", ".join(f"{name} {size.min} to {size.max} (tuned for {size.opt})" for name, size in ranges)

    def label(self) -> str:
        """The phase, and sizes that tell the profile from others of an engine, e.g. `decode batch=4 kv_length=768`."""
        fixed = [f"{name}={size}" for name in self.ranges if (size := self.size(name)) is not None]
        return " ".join([self.phase.value, *fixed])


def register_hooks(converter: Converter) -> None:
    """Let a converter write a profile's ranges as `{name: [min, opt, max]}`, and read them."""

    def write(profile: Profile) -> dict[str, Any]:
        ranges = {name: [size.min, size.opt, size.max] for name, size in profile.ranges.items()}
        return {"phase": profile.phase.value, "ranges": ranges}

    def read(data: Any, _: type[Profile]) -> Profile:
        if not isinstance(data, dict) or set(data) != {"phase", "ranges"}:
            raise ValueError("a profile is not an object of `phase` and `ranges`")
        ranges = converter.structure(data["ranges"], dict[str, list[int]])
        if any(len(sizes) != 3 for sizes in ranges.values()):
            raise ValueError("a range is not [min, opt, max]")
        return Profile(Phase(data["phase"]), {name: DynamicDimension(name, *sizes) for name, sizes in ranges.items()})

    converter.register_unstructure_hook(Profile, write)
    converter.register_structure_hook(Profile, read)
