"""Maximum sequence length of a language model, with rope scaling."""

from __future__ import annotations

from typing import Any

from ditto.builders.decoder_config import rope_parameters

# Kinds of rope whose frequencies do not depend on the sequence length: they extend it by their scaling factor.
_SCALED = ("linear", "llama3", "yarn")


def most_positions(config: Any) -> int | None:
    """Maximum number of tokens per sequence of a text configuration.

    None if not stated.

    If the length before scaling is stated too, `max_position_embeddings` usually is the scaled length.
    """
    positions = getattr(config, "max_position_embeddings", None)
    rope, factor = rope_parameters(config), _factor(config)
    if positions is None or factor is None or config.model_type.startswith("gemma3"):  # Gemma 3 states the scaled one
        return positions
    return max(positions, int((rope.get("original_max_position_embeddings") or positions) * factor))


def why_no_more(config: Any) -> str:
    """Addition to errors about too long sequences that explains the model's rope.

    May be empty.
    """
    kind = _kind(rope_parameters(config))
    if "dynamic" in kind:
        return f"; {kind} rope goes further by changing its frequencies within a sequence, which engines do not"
    return ""


def _factor(config: Any) -> float | None:
    rope = rope_parameters(config)
    factor = rope.get("factor")
    known = _kind(rope) in _SCALED and isinstance(factor, (int, float))
    return float(factor) if known else None  # type: ignore[arg-type]


def _kind(rope: dict[str, Any]) -> str:
    return str(rope.get("rope_type", rope.get("type", "default")))
