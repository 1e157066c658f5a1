"""Which optimisation profile of an engine runs what, and at which sizes."""

from __future__ import annotations

from attrs import frozen

from ditto.engine import Component, EngineTree
from ditto.targets.tensorrt.apart import LIVE, LIVE_STEP

# Prompts are padded to a multiple of this: TensorRT-RTX compiles kernels for each new length.
_LENGTH_STEP = 64
# With static shapes a prompt runs faster by about as much as this makes it longer, at least.
_MOST_PADDING = 9 / 8


def profile_for(component: Component, dimension: str, size: int, name: str = "") -> tuple[int, int]:
    """The profile with the smallest range that takes `size` or, where no range begins that low, more.

    Args:
        name: what the profile's name begins with.
    Returns:
        The profile's index, and the size to run: `size`, or the range's smallest.
    Raises:
        ValueError: no profile takes as much; whoever asks has checked the limits.
    """
    fitting: list[tuple[int, int, int]] = []
    for index, (profile, ranges) in enumerate(component.profiles.items()):
        smallest, _, largest = ranges[dimension]
        if profile.startswith(name) and size <= largest:
            fitting.append((largest, index, max(size, smallest)))
    if not fitting:
        raise ValueError(f"no profile takes {dimension} {size}")
    _, index, taken = min(fitting)
    return index, taken


@frozen
class Prompts:
    """How prompts are run: the profile of component `llm`, the length they are padded to, and whether the profile takes
    no other."""

    profile: int
    length: int
    is_fixed: bool


def prefill_profile(tree: EngineTree, rows: int, length: int) -> Prompts:
    """How prompts of `rows` rows are run, of which the longest has `length` tokens: on a profile of just that batch and
    a length that is little longer, or on the one for all."""
    profiles = tree.component("llm").profiles
    for index, (name, ranges) in enumerate(profiles.items()):
        fixed = ranges["sequence"][0]
        if name.startswith("prefill-") and ranges["batch"][0] == rows and length <= fixed <= length * _MOST_PADDING:
            return Prompts(index, fixed, is_fixed=True)
    *_, longest = profiles["prefill"]["sequence"]
    return Prompts(profile_for_all_prompts(tree), padded_length(length, longest), is_fixed=False)


def profile_for_all_prompts(tree: EngineTree) -> int:
    """The index of the profile that runs prompts of any batch and length."""
    return list(tree.component("llm").profiles).index("prefill")


def padded_length(length: int, longest: int) -> int:
    """What a prompt's length is rounded up to where any will do."""
    return min(-(-length // _LENGTH_STEP) * _LENGTH_STEP, longest)


def decoder(tree: EngineTree) -> str:
    """The component that runs single tokens."""
    return "decode" if "decode" in tree.manifest.components else "llm"


def decode_profile(tree: EngineTree, batch: int, live: int | None = None) -> tuple[int, int]:
    """The decoder's profile that runs single tokens of `batch` rows, and how many rows it runs.

    Args:
        live: slots of the cache that are looked at: a profile for just as many is preferred.
    """
    component = tree.component(decoder(tree))
    index, rows = profile_for(component, "batch", batch, name="decode")
    for special, ranges in enumerate(component.profiles.values()):
        if ranges["batch"][0] == rows and ranges.get(LIVE) == [live] * 3:
            return special, rows
    return index, rows


def live_slots(count: int, capacity: int) -> int:
    """How many slots decode looks at where rows hold up to `count` tokens."""
    return min(-(-count // LIVE_STEP) * LIVE_STEP, capacity)
