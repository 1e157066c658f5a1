"""Early check of a configuration for sizes and other values that no model has."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from ditto.errors import CheckpointError

# Largest accepted sizes, far above those of any model.
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
# Sizes that are derived from others if missing or null.
_DERIVED = ("head_dim", "intermediate_size", "num_key_value_heads", "num_channels")
# Sizes that may be lists: height and width, or one value per layer.
_PAIRS = ("image_size", "patch_size")
_SEVERAL = (*_PAIRS, "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim")
# Numbers that may be missing or null, and need not be integers.
_NUMBERS = (
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "layer_norm_eps",
    "layer_norm_epsilon",
    "partial_rotary_factor",
    "query_pre_attn_scalar",
    "rms_norm_eps",
    "rope_theta",
)
_LARGEST_NUMBER = 1e30
_ROPE = ("rope_parameters", "rope_scaling")
_ROPE_NUMBERS = (
    "beta_fast",
    "beta_slow",
    "factor",
    "high_freq_factor",
    "low_freq_factor",
    "original_max_position_embeddings",
    "partial_rotary_factor",
    "rope_theta",
)
_TOKENS = ("image_token_id", "image_token_index")
# Lists with a string or a number per layer, or for some layers.
_LISTS = ("block_types", "cross_attention_layers", "layer_types", "layers_block_type")


def check_sizes(config: Any, where: str) -> None:
    """Check the values of a configuration and its nested ones.

    Missing keys are left to transformers.

    Raises:
        CheckpointError: a value has the wrong type, or is out of range for any model.
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
        _check_others(vars(part), name, where)
    architectures = getattr(config, "architectures", None) or []
    if not isinstance(architectures, list) or not all(isinstance(name, str) for name in architectures):
        raise CheckpointError(
            f"`architectures` is {architectures!r}", where=where, remedy="it must be a list of class names"
        )


def _check_others(values: dict[str, Any], name: str, where: str) -> None:
    """Check the values of one configuration that are not sizes."""
    checks = [(f"{name}{key}", values.get(key), _is_number, "a number above 0") for key in _NUMBERS]
    checks += [(f"{name}{key}", values.get(key), _is_token, "a token id") for key in _TOKENS]
    checks += [(f"{name}{key}", values.get(key), _is_list, "a list") for key in _LISTS]
    for key in _ROPE:
        rope = values.get(key)
        checks.append((f"{name}{key}", rope, lambda value: isinstance(value, dict), "an object"))
        if isinstance(rope, dict):
            inner = {f"{key}.{kind}": each for kind, each in rope.items() if isinstance(each, dict)}  # by kind of layer
            for place, each in {key: rope, **inner}.items():
                for number in _ROPE_NUMBERS:
                    checks.append((f"{name}{place}.{number}", each.get(number), _is_number, "a number above 0"))
    for place, value, is_right, form in checks:
        if value is not None and not is_right(value):
            raise CheckpointError(f"`{place}` is {value!r}", where=where, remedy=f"it must be {form}")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < _LARGEST_NUMBER and math.isfinite(value)


def _is_token(value: Any) -> bool:
    return type(value) is int and abs(value) < _LARGEST["vocab_size"]


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(each, (str, int)) for each in value)


def _parts(config: Any) -> Iterator[tuple[str, Any]]:
    yield "", config
    for name, value in vars(config).items():
        if hasattr(value, "model_type"):
            yield f"{name}.", value
