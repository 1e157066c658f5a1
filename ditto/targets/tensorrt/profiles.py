"""Optimization profiles of the plugin-free target."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from ditto.arguments import DynamicDimension
from ditto.configs import Limits
from ditto.engine import Phase, Profile, batch_dimension
from ditto.targets.tensorrt.separate import KV_LENGTH


def buckets(maximum: int) -> tuple[int, ...]:
    """Batch sizes with their own static-shape profile: powers of two, and the maximum.

    Kernels for static shapes are faster; other batch sizes use the next larger profile.
    """
    powers = itertools.takewhile(lambda size: size < maximum, (1 << power for power in itertools.count()))
    return (*powers, maximum)


def vision_profiles(dimensions: Sequence[DynamicDimension], is_specialized: bool) -> tuple[Profile, ...]:
    """Profiles of a vision tower: one for all batch sizes, or one with static shapes for each bucket."""
    is_batched = batch_dimension(dimension.name for dimension in dimensions) is not None
    if not (is_specialized and is_batched):  # of other dimensions, padding would be seen
        return (Profile(Phase.ENCODE, {dimension.name: dimension for dimension in dimensions}),)
    (batch,) = dimensions
    return tuple(Profile(Phase.ENCODE, {batch.name: _fixed(batch.name, count)}) for count in buckets(batch.max))


def prefill_profiles(limits: Limits, is_specialized: bool) -> tuple[Profile, ...]:
    """Profiles of prompts: one for any length, and ones with static shapes for prompts of the typical length.

    TensorRT-RTX has faster matrix multiplications for static shapes, see "On an H200" in benchmarks/NOTES.md.
    """
    sequence = DynamicDimension.up_to("sequence", limits.max_input_len)
    profiles = [Profile(Phase.PREFILL, {**_common(limits), "sequence": sequence})]
    length = limits.opt_input_len
    for rows in buckets(limits.max_batch_size) if length and is_specialized else ():
        fixed = {name: _fixed(name, size) for name, size in (("batch", rows), ("sequence", length))}
        profiles.append(Profile(Phase.PREFILL, {**_common(limits), **fixed}))
    return tuple(profiles)


def combined_decode_profiles(limits: Limits, is_specialized: bool) -> tuple[Profile, ...]:
    """Profiles of one token per row, in an engine that also runs prompts."""
    common = {**_common(limits), "sequence": _fixed("sequence", 1)}
    return tuple(Profile(Phase.DECODE, {**common, **batch}) for batch in _batches(limits, is_specialized))


def decode_profiles(limits: Limits, kv_length_step: int, is_specialized: bool) -> tuple[Profile, ...]:
    """Profiles of a decode engine.

    Args:
        kv_length_step: the KV lengths that the runtime asks for are multiples of this.
    """
    return tuple(
        Profile(Phase.DECODE, {**_common(limits), KV_LENGTH: kv_length, **batch})
        for batch in _batches(limits, is_specialized)
        for kv_length in _kv_lengths(limits, kv_length_step, is_specialized)
    )


def _batches(limits: Limits, is_specialized: bool) -> list[dict[str, DynamicDimension]]:
    """Ranges of batch sizes: each bucket alone, or all batch sizes."""
    sizes = buckets(limits.max_batch_size) if is_specialized else ()
    return [{"batch": _fixed("batch", rows)} for rows in sizes] or [
        {"batch": DynamicDimension.up_to("batch", limits.max_batch_size)}
    ]


def _common(limits: Limits) -> dict[str, DynamicDimension]:
    common = {"batch": DynamicDimension.up_to("batch", limits.max_batch_size)}
    if limits.max_prompt_embedding_table_size:
        common["prompt_rows"] = DynamicDimension.up_to("prompt_rows", limits.max_prompt_embedding_table_size)
    return common


def _kv_lengths(limits: Limits, step: int, is_specialized: bool) -> Iterator[DynamicDimension]:
    """Ranges of KV lengths for decode: any length, and static ones after a typical prompt.

    Static lengths are 2 to 4 % faster on H200, see "A block at a time, on an H200" in benchmarks/NOTES.md.
    """
    yield DynamicDimension.up_to(KV_LENGTH, limits.max_seq_len)
    if limits.opt_input_len and is_specialized:
        first = limits.opt_input_len // step + 1
        for slots in dict.fromkeys(min(step * steps, limits.max_seq_len) for steps in (first, first + 1)):
            yield _fixed(KV_LENGTH, slots)


def _fixed(name: str, size: int) -> DynamicDimension:
    return DynamicDimension(name, size, size, size)
