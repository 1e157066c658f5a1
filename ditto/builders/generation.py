"""Generation defaults of a model, as Hugging Face's `generate` reads them."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ditto.builders.decoder_config import image_token_id
from ditto.engine import Tokens
from ditto.errors import CheckpointError

_SPECIAL_TOKENS = ("bos_token_id", "decoder_start_token_id", "eos_token_id", "pad_token_id")
_LARGEST = 2**63 - 1  # number in a manifest
# Prefixes of settings that change the output format or the computation, but not the answer.
_WITHOUT_EFFECT = ("output_", "return_", "use_cache", "cache_", "max_cache_len", "compile_config", "disable_compile")


def defaults_file(directory: Path) -> Path:
    """Path of the generation defaults in a checkpoint directory."""
    own = directory / "generation_config.json"
    return own if own.is_file() else directory / "config.json"


def checkpoint_defaults(directory: Path, config: Any) -> dict[str, Any]:
    """Generation defaults of a checkpoint directory.

    From generation_config.json or, without that file, from the model's configuration; the two are never combined.

    Args:
        config: Hugging Face's configuration object of the directory.
    Raises:
        Exception: transformers cannot read them.
    """
    import transformers
    from transformers import GenerationConfig

    file = defaults_file(directory)
    if file.name != "config.json":
        return _stated(GenerationConfig.from_pretrained(directory), str(file))
    if int(transformers.__version__.split(".")[0]) >= 5:  # reads only the file, not the defaults of its class
        found = GenerationConfig.from_pretrained(directory, config_file_name=file.name, _from_model_config=True)
    else:
        found = GenerationConfig.from_model_config(config)
    return _stated(found, str(file))


def module_defaults(module: Any) -> dict[str, Any]:
    """Generation defaults of a model in memory, else those in its configuration."""
    from transformers import GenerationConfig

    found = getattr(module, "generation_config", None)
    found = GenerationConfig.from_model_config(module.config) if found is None else copy.deepcopy(found)
    return _stated(found, type(module).__name__)


def _stated(found: Any, where: str) -> dict[str, Any]:
    """Settings that differ from a new `GenerationConfig`, as JSON values.

    Keys unknown to `generate` are left out.

    Raises:
        CheckpointError: one contains a number that a manifest cannot hold.
    """
    biases = getattr(found, "sequence_bias", None)
    if isinstance(biases, dict):  # its keys are tuples; the list form is equivalent
        found.sequence_bias = [[list(tokens), bias] for tokens, bias in biases.items()]
    known = type(found)().to_dict()
    content = json.loads(found.to_json_string(use_diff=True, ignore_metadata=True))
    stated = {
        name: value for name, value in content.items() if value is not None and name in known and value != known[name]
    }
    for name, value in stated.items():
        if not _in_range(value):
            raise CheckpointError(
                f"The model's generation defaults state {name} {value}, which is out of range.",
                where=where,
                remedy="correct or remove it",
            )
    return stated


def _in_range(value: Any) -> bool:
    """Whether all numbers of a JSON value are finite and fit into a manifest."""
    if isinstance(value, dict):
        return all(map(_in_range, value.values()))
    if isinstance(value, list):
        return all(map(_in_range, value))
    return not isinstance(value, (int, float)) or -_LARGEST <= value <= _LARGEST


def tokens(config: Any, defaults: Mapping[str, Any], vocab_size: int) -> Tokens:
    """Token ids needed to run a model.

    Args:
        config: Hugging Face's configuration of the whole model.
        defaults: the model's generation defaults, the only source of end and pad token in `generate`.
        vocab_size: number of rows of the embedding.
    Raises:
        CheckpointError: an end or pad token is not an id.
    """
    ends = _ids(defaults, "eos_token_id")
    pads = [token for token in (*_ids(defaults, "pad_token_id"), *ends) if 0 <= token < vocab_size]
    image = image_token_id(config)
    return Tokens(
        vocab_size=vocab_size,
        end=[token for token in ends if token >= 0],
        pad=next(iter(pads), 0),
        image=image,
        uncounted=_uncounted(config),
    )


def _uncounted(config: Any) -> int | None:
    """The padding id of models that make positions from token ids (RoBERTa's), which skip it; None for others."""
    name = type(config).__module__.replace(".configuration_", ".modeling_")
    if not name.startswith("transformers.") or find_spec(name) is None:
        return None
    package = import_module(name)  # a function of the file, or of a class in it
    counts = any(hasattr(each, "create_position_ids_from_input_ids") for each in (package, *vars(package).values()))
    return getattr(config, "pad_token_id", None) if counts else None


def answer_settings(defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Generation defaults that change answers.

    The token ids that `tokens` returns are left out.
    """
    from transformers import GenerationConfig

    standard = GenerationConfig().to_dict()
    if hasattr(GenerationConfig, "_get_default_generation_params"):  # transformers 5 keeps them separately
        standard |= GenerationConfig._get_default_generation_params()
    return {
        name: value
        for name, value in defaults.items()
        if name not in _SPECIAL_TOKENS and not name.startswith(_WITHOUT_EFFECT) and value != standard.get(name)
    }


def _ids(defaults: Mapping[str, Any], name: str) -> list[int]:
    value = defaults.get(name)
    values = value if isinstance(value, (list, tuple)) else [] if value is None else [value]
    if not all(isinstance(token, int) for token in values):
        raise CheckpointError(f"{name} {value!r} is not a token id", remedy="check the model's generation defaults")
    return [int(token) for token in values]
