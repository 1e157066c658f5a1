"""How long the sequences of a language model may be, rope scaling included."""

from __future__ import annotations

from typing import Any

from ditto.builders.facts import rope_parameters

# Kinds of rope whose frequencies do not depend on a sequence's length: they reach as far as they are scaled.
_SCALED = ("linear", "llama3", "yarn")


def most_positions(config: Any) -> int | None:
    """Tokens that a sequence of a text configuration may have; None where nothing is stated.

    Where the length before scaling is stated too, `max_position_embeddings` usually is the scaled one.
    """
    positions = getattr(config, "max_position_embeddings", None)
    rope, factor = rope_parameters(config), _factor(config)
    if positions is None or factor is None or config.model_type.startswith("gemma3"):  # Gemma 3 states the scaled one
        return positions
    return max(positions, int((rope.get("original_max_position_embeddings") or positions) * factor))


def why_no_more(config: Any) -> str:
    """What an error about too long sequences adds about the model's rope, if anything."""
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
