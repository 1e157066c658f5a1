"""Choice of the engine, optimization profile and sizes of a call."""

from __future__ import annotations

from attrs import frozen

from ditto.engine import PROMPT_LENGTH_STEP, Component, EngineTree, Phase

# Maximum ratio of padded to real length of a prompt on a profile with static shapes. Padding by an eighth costs less
# than the 18 to 30 % that these profiles gain, see "On an H200" in benchmarks/NOTES.md.
MAX_STATIC_PADDING = 9 / 8


def component_for(tree: EngineTree, phase: Phase) -> str:
    """Name of the component whose engine runs a phase.

    Raises:
        ValueError: the tree has no such component.
    """
    language = (Phase.PREFILL, Phase.DECODE)
    serving = (phase, Phase.MIXED) if phase in language else (phase,)
    for name, component in tree.manifest.components.items():
        if any(profile.phase in serving for profile in component.spec.profiles):
            return name
    raise ValueError(f"the tree has no engine for {phase.value}")


def profile_for(component: Component, phase: Phase, dimension: str, size: int) -> tuple[int, int]:
    """Profile of a phase with the smallest range that holds `size`, padded if necessary.

    Returns:
        The profile's index, and the size to run: `size`, or the minimum of the range if that is larger.
    Raises:
        ValueError: no profile holds the size; callers check the limits first.
    """
    fitting: list[tuple[int, int, int]] = []
    for index, profile in enumerate(component.spec.profiles):
        accepted = profile.ranges.get(dimension)
        if profile.phase == phase and accepted is not None and size <= accepted.max:
            fitting.append((accepted.max, index, max(size, accepted.min)))
    if not fitting:
        raise ValueError(f"no {phase.value} profile includes {dimension} {size}")
    _, index, padded = min(fitting)
    return index, padded


@frozen
class PrefillCall:
    """Profile and padded length of a prefill call.

    Args:
        profile: index in the component's profiles.
        length: padded length in tokens.
        is_fixed: whether the profile accepts no other length.
    """

    profile: int
    length: int
    is_fixed: bool


def prefill_profile(tree: EngineTree, rows: int, length: int) -> PrefillCall:
    """Profile and padded length for `rows` prompts, of which the longest has `length` tokens.

    A profile with static shapes is preferred if its batch size matches and its length needs little padding.
    """
    profiles = tree.component(component_for(tree, Phase.PREFILL)).spec.profiles
    for index, profile in enumerate(profiles):
        fixed = profile.size("sequence")
        if profile.phase != Phase.PREFILL or profile.size("batch") != rows or fixed is None:
            continue
        if length <= fixed <= length * MAX_STATIC_PADDING:
            return PrefillCall(index, fixed, is_fixed=True)
    general = dynamic_prefill_profile(tree)
    return PrefillCall(general, padded_length(length, profiles[general].ranges["sequence"].max), is_fixed=False)


def dynamic_prefill_profile(tree: EngineTree) -> int:
    """Index of the prefill profile with dynamic batch size and length."""

    def extent(index: int) -> tuple[int, int]:
        ranges = profiles[index].ranges
        sequence, batch = ranges["sequence"], ranges.get("batch")
        return sequence.max - sequence.min, batch.max - batch.min if batch is not None else 0

    profiles = tree.component(component_for(tree, Phase.PREFILL)).spec.profiles
    return max((index for index, profile in enumerate(profiles) if profile.phase == Phase.PREFILL), key=extent)


def padded_length(length: int, longest: int) -> int:
    """Prompt length rounded up to a multiple of the padding step, at most `longest`."""
    return min(-(-length // PROMPT_LENGTH_STEP) * PROMPT_LENGTH_STEP, longest)


def decode_profile(tree: EngineTree, batch: int, kv_length: int | None = None) -> tuple[int, int]:
    """Index of the decode profile for `batch` rows, and the number of rows it runs.

    Args:
        kv_length: slots of the KV cache to read; a profile for exactly this length is preferred.
    """
    component = tree.component(component_for(tree, Phase.DECODE))
    index, rows = profile_for(component, Phase.DECODE, "batch", batch)
    for special, profile in enumerate(component.spec.profiles):
        if kv_length is not None and profile.size("batch") == rows and profile.size("kv_length") == kv_length:
            return special, rows
    return index, rows


def kv_length_bucket(tree: EngineTree, count: int, capacity: int) -> int:
    """KV length that decode reads if rows hold up to `count` tokens.

    The whole `capacity`, unless the engine has an input for the KV length.
    """
    step = tree.component(component_for(tree, Phase.DECODE)).spec.kv_length_step
    return capacity if step is None else min(-(-count // step) * step, capacity)
