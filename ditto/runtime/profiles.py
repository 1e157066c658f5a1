"""Which optimisation profile of an engine runs what, and at which sizes."""

from __future__ import annotations

from ditto.engine import Component, EngineTree

# Slots of the KV cache that decode looks at are rounded up to a multiple of this: each size is a CUDA graph of its own.
LIVE_STEP = 256


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


def prefill_profile(tree: EngineTree) -> int:
    """The index of the profile of component `llm` that runs prompts, for all batches."""
    return profile_for(tree.component("llm"), "sequence", 2)[0]


def decoder(tree: EngineTree) -> str:
    """The component that runs single tokens."""
    return "decode" if "decode" in tree.manifest.components else "llm"


def decode_profile(tree: EngineTree, batch: int) -> tuple[int, int]:
    """The decoder's profile that runs single tokens of `batch` rows, and how many rows it runs."""
    return profile_for(tree.component(decoder(tree)), "batch", batch, name="decode")


def live_slots(count: int, capacity: int) -> int:
    """How many slots decode looks at where rows hold up to `count` tokens."""
    return min(-(-count // LIVE_STEP) * LIVE_STEP, capacity)
