"""Optimization profiles: the shape ranges of an engine, by phase."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

from attrs import field, frozen
from cattrs import Converter

from ditto.arguments import DynamicDimension


class Phase(str, Enum):
    """The kind of work that an engine call does."""

    ENCODE = "encode"
    """Images → image embeddings."""

    PREFILL = "prefill"
    """Prompts, with empty KV cache rows → logits."""

    DECODE = "decode"
    """One new token of each row → logits."""

    MIXED = "mixed"
    """Packed tokens of prompts and of running sequences in one call → logits."""


PROMPT_LENGTH_STEP = 64
"""Sessions pad prompts to a multiple of this number of tokens.

TensorRT-RTX compiles kernels for each new length, see "Cold start" in benchmarks/NOTES.md.
"""

IMAGE_TOKENS = "image_tokens"
"""Name of the dimension that counts the tokens of an image: a vision engine that has it runs one image in each call."""


def batch_dimension(dimensions: Iterable[str]) -> str | None:
    """The dimension of a vision engine that counts items: its only one, unless that counts tokens.

    Args:
        dimensions: names of the engine's dynamic dimensions.
    Returns:
        None for engines that run one item in each call.
    """
    names = {*dimensions}
    return names.pop() if len(names) == 1 and IMAGE_TOKENS not in names else None


def _by_name(ranges: Mapping[str, DynamicDimension]) -> dict[str, DynamicDimension]:
    return dict(ranges)


@frozen
class Profile:
    """An optimization profile: ranges of named dimensions, for one phase.

    Args:
        phase: the kind of work that calls with this profile do.
        ranges: minimum, typical and maximum size by dimension name.
    """

    phase: Phase
    ranges: dict[str, DynamicDimension] = field(converter=_by_name)

    def size(self, dimension: str) -> int | None:
        """Size of a dimension that is fixed in the profile.

        None where the profile accepts several sizes or does not have the dimension.
        """
        known = self.ranges.get(dimension)
        return known.max if known is not None and known.min == known.max else None

    def ranges_text(self) -> str:
        """All ranges on one line, e.g. `batch 1 to 4 (tuned for 2)`."""
        ranges = self.ranges.items()
        return ", ".join(f"{name} {size.min} to {size.max} (tuned for {size.opt})" for name, size in ranges)

    def label(self) -> str:
        """The phase and the fixed sizes, e.g. `decode batch=4 kv_length=768`."""
        fixed = [f"{name}={size}" for name in self.ranges if (size := self.size(name)) is not None]
        return " ".join([self.phase.value, *fixed])


def register_hooks(converter: Converter) -> None:
    """Make a converter write and read ranges as `{name: [min, opt, max]}`."""

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
