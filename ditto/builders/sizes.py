"""Sizes in a configuration that no model has: found before anything is made of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ditto.errors import CheckpointError

# The largest that are taken for serious, far above any model's.
_LARGEST = {
    "num_hidden_layers": 10_000,
    "hidden_size": 1 << 20,
    "intermediate_size": 1 << 24,
    "num_attention_heads": 1 << 16,
    "num_key_value_heads": 1 << 16,
    "head_dim": 1 << 16,
    "vocab_size": 1 << 28,
    "max_position_embeddings": 1 << 31,
    "image_size": 1 << 16,
    "patch_size": 1 << 16,
    "num_channels": 1 << 10,
}
# Left out or null, these follow from others.
_DERIVED = ("head_dim", "intermediate_size", "num_key_value_heads", "num_channels")
# Those that may be lists: height and width, or a value for each layer.
_PAIRS = ("image_size", "patch_size")
_SEVERAL = (*_PAIRS, "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim")


def check_sizes(config: Any, where: str) -> None:
    """Check the sizes of a configuration and of those inside it; keys that it does not have are left to transformers.

    Raises:
        CheckpointError: one is no number, or none that a model could have.
    """
    for name, part in _parts(config):
        for key, largest in _LARGEST.items():
            if key not in vars(part):
                continue
            value = vars(part)[key]
            if value is None and key in _DERIVED:
                continue
            sizes = value if key in _SEVERAL and isinstance(value, (list, tuple)) else [value]
            one_axis = key in _PAIRS and value is sizes and len(sizes) != 2
            if not sizes or one_axis or not all(type(size) is int and 1 <= size <= largest for size in sizes):
                raise CheckpointError(
                    f"`{name}{key}` is {value!r}", where=where, remedy=f"it must be a number from 1 to {largest}"
                )
    architectures = getattr(config, "architectures", None) or []
    if not isinstance(architectures, list) or not all(isinstance(name, str) for name in architectures):
        raise CheckpointError(
            f"`architectures` is {architectures!r}", where=where, remedy="it must be a list of class names"
        )


def _parts(config: Any) -> Iterator[tuple[str, Any]]:
    yield "", config
    for name, value in vars(config).items():
        if hasattr(value, "model_type"):
            yield f"{name}.", value
