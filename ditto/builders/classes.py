"""Model class of a checkpoint's configuration.

Refuses classes that compute something other than the engines do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from ditto.errors import CheckpointError

# Substrings of the names of nested configurations of models with inputs or outputs other than text.
_OTHER_INPUTS = ("vision", "audio", "image", "speech", "codec", "vq_", "qformer", "text_encoder", "depth_decoder")
_OTHER_TASKS = (
    "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES",
    "MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES",
    "MODEL_FOR_VISION_2_SEQ_MAPPING_NAMES",
    "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES",
    "MODEL_FOR_TEXT_TO_WAVEFORM_MAPPING_NAMES",
    "MODEL_FOR_TEXT_TO_SPECTROGRAM_MAPPING_NAMES",
    "MODEL_FOR_VISUAL_QUESTION_ANSWERING_MAPPING_NAMES",
)


def model_class(config: Any, automatic: str, where: str, *, runs_code: bool) -> type[nn.Module] | None:
    """The model class of a configuration in transformers.

    None if the checkpoint's own code defines it.

    Args:
        automatic: the auto class of transformers for the required kind of model, e.g. `AutoModelForCausalLM`.
        runs_code: whether code that comes with the checkpoint may run.
    Raises:
        CheckpointError: the configuration names a class of another kind of model.
    """
    if runs_code and automatic in (getattr(config, "auto_map", None) or {}):
        return None
    import transformers

    classes: Mapping[Any, Any] = getattr(transformers, automatic)._model_mapping
    known = classes.get(type(config), None)
    found = (known,) if isinstance(known, type) else tuple(known or ())
    named: list[str] = list(getattr(config, "architectures", None) or ())
    if not named and found:
        return found[0]
    by_name = {each.__name__.lower(): each for each in found}
    for name in named:
        if name.lower() in by_name:
            return by_name[name.lower()]
    kind = "language model" if automatic == "AutoModelForCausalLM" else "vision-language model"
    if not found:
        raise CheckpointError(
            f"Model type {config.model_type!r} has no {kind} in the installed transformers{_also(named)}.",
            where=where,
            remedy=f"give a checkpoint that {automatic} loads",
        )
    raise CheckpointError(
        f"The checkpoint is of class {', '.join(named)}, which is not a {kind}.",
        where=where,
        remedy=f"give a checkpoint of {found[0].__name__}; if this one holds all tensors of that class, name the class "
        "under `architectures`",
    )


def is_text_model(config: Any) -> bool:
    """Whether a configuration describes a text-only decoder."""
    from transformers.models.auto import modeling_auto

    others = [getattr(modeling_auto, name, {}) for name in _OTHER_TASKS]
    return (
        config.model_type in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        and not any(config.model_type in other for other in others)
        and not getattr(config, "is_encoder_decoder", False)
        and not has_other_inputs(config)
    )


def has_other_inputs(config: Any) -> bool:
    """Whether a configuration also describes image, audio or other components."""
    inner = {name for name, value in vars(config).items() if hasattr(value, "model_type")}
    inner |= set(getattr(type(config), "sub_configs", None) or {})
    return any(part in name for name in inner for part in _OTHER_INPUTS) or "text_config" in inner


def _also(named: list[str]) -> str:
    return f"; the checkpoint is of class {', '.join(named)}" if named else ""
