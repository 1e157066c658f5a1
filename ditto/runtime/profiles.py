"""Which optimization profile of which engine runs a call, and at which sizes."""

from __future__ import annotations

from attrs import frozen

from ditto.engine import Component, EngineTree, Phase

# Prompts are padded to a multiple of this: TensorRT-RTX compiles kernels for each new length.
_LENGTH_STEP = 64
# With static shapes a prompt runs faster by at least as much as this makes it longer.
_MOST_PADDING = 9 / 8


def component_for(tree: EngineTree, phase: Phase) -> str:
    """The component whose engine runs a phase.

    Raises:
        ValueError: the tree has none.
    """
    language = (Phase.PREFILL, Phase.DECODE)
    serving = (phase, Phase.MIXED) if phase in language else (phase,)
    for name, component in tree.manifest.components.items():
        if any(profile.phase in serving for profile in component.profiles):
            return name
    raise ValueError(f"the tree has no engine for {phase.value}")


def profile_for(component: Component, phase: Phase, dimension: str, size: int) -> tuple[int, int]:
    """The profile of a phase with the smallest range that includes `size` or, where no range begins that low, more.

    Returns:
        The profile's index, and the size to run: `size`, or the range's smallest.
    Raises:
        ValueError: no profile includes as much; the caller has checked the limits.
    """
    fitting: list[tuple[int, int, int]] = []
    for index, profile in enumerate(component.profiles):
        accepted = profile.ranges.get(dimension)
        if profile.phase == phase and accepted is not None and size <= accepted.max:
            fitting.append((accepted.max, index, max(size, accepted.min)))
    if not fitting:
        raise ValueError(f"no {phase.value} profile includes {dimension} {size}")
    _, index, padded = min(fitting)
    return index, padded


@frozen
class PrefillCall:
    """How prompts are run.

    Args:
        profile: its index in the component's list.
        length: what prompts are padded to, in tokens.
        is_fixed: whether the profile accepts no other length.
    """

    profile: int
    length: int
    is_fixed: bool


def prefill_profile(tree: EngineTree, rows: int, length: int) -> PrefillCall:
    """How prompts of `rows` rows are run, of which the longest has `length` tokens: on a profile of just that batch and
    a length that is little longer, or on the one for any prompt."""
    profiles = tree.component(component_for(tree, Phase.PREFILL)).profiles
    for index, profile in enumerate(profiles):
        fixed = profile.size("sequence")
        if profile.phase != Phase.PREFILL or profile.size("batch") != rows or fixed is None:
            continue
        if length <= fixed <= length * _MOST_PADDING:
            return PrefillCall(index, fixed, is_fixed=True)
    general = dynamic_prefill_profile(tree)
    return PrefillCall(general, padded_length(length, profiles[general].ranges["sequence"].max), is_fixed=False)


def dynamic_prefill_profile(tree: EngineTree) -> int:
    """The index of the profile that runs prompts of any batch and length."""

    def extent(index: int) -> tuple[int, int]:
        ranges = profiles[index].ranges
        sequence, batch = ranges["sequence"], ranges.get("batch")
        return sequence.max - sequence.min, batch.max - batch.min if batch is not None else 0

    profiles = tree.component(component_for(tree, Phase.PREFILL)).profiles
    return max((index for index, profile in enumerate(profiles) if profile.phase == Phase.PREFILL), key=extent)


def padded_length(length: int, longest: int) -> int:
    """What a prompt's length is rounded up to where any will do."""
    return min(-(-length // _LENGTH_STEP) * _LENGTH_STEP, longest)


def decode_profile(tree: EngineTree, batch: int, kv_length: int | None = None) -> tuple[int, int]:
    """The profile that runs single tokens of `batch` rows, and how many rows it runs.

    Args:
        kv_length: slots of the KV cache that are read: a profile for exactly that many is preferred.
    """
    component = tree.component(component_for(tree, Phase.DECODE))
    index, rows = profile_for(component, Phase.DECODE, "batch", batch)
    for special, profile in enumerate(component.profiles):
        if kv_length is not None and profile.size("batch") == rows and profile.size("live") == kv_length:
            return special, rows
    return index, rows


def kv_length_bucket(tree: EngineTree, count: int, capacity: int) -> int:
    """How many slots of the KV cache decode reads where rows hold up to `count` tokens: all of them, unless its engine
    has an input that says how many."""
    step = tree.component(component_for(tree, Phase.DECODE)).kv_length_step
    return capacity if step is None else min(-(-count // step) * step, capacity)
