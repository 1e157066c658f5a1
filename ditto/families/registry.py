"""Registry of families by Hugging Face's `model_type`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ditto.builders import LlmBuilder, Pretrained
from ditto.builders.classes import has_other_inputs, is_text_model
from ditto.errors import ConfigError
from ditto.families.llava import LlavaModel
from ditto.families.multimodal import MultimodalModel

FAMILIES: dict[str, type[MultimodalModel]] = {family.model_type: family for family in (LlavaModel,)}


def family_of(
    model: str | Path, revision: str | None = None, trust_remote_code: bool = False
) -> MultimodalModel | LlmBuilder:
    """Settings for a vision-language or text model in a directory or on the hub.

    Raises:
        CheckpointError: the model does not exist.
        ConfigError: it belongs to no supported family and is not a causal language model.
    """
    config = Pretrained(str(model), "AutoModelForCausalLM", revision, trust_remote_code).config
    if config.model_type in FAMILIES:
        return FAMILIES[config.model_type].from_pretrained(str(model), revision=revision)
    if not is_text_model(config) and not (trust_remote_code and "AutoModelForCausalLM" in _code_of(config)):
        raise ConfigError(
            f"model type {config.model_type!r} is not supported{_reason(config)}",
            where=str(model),
            remedy=f"supported: {', '.join(sorted(FAMILIES))}, and text-only causal language models",
        )
    return LlmBuilder.from_pretrained(str(model), revision=revision, trust_remote_code=trust_remote_code)


def _reason(config: Any) -> str:
    if getattr(config, "is_encoder_decoder", False):
        return ": it is an encoder-decoder"
    return ": it is not a model of text alone" if has_other_inputs(config) else ""


def _code_of(config: Any) -> dict[str, Any]:
    return getattr(config, "auto_map", None) or {}
