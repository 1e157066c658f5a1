"""Check that a model class uses the sizes in config.json.

A class ignores keys with other names and would use its defaults instead.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from ditto.errors import CheckpointError

# Sizes of a transformer, with the key names that different classes use for them.
_NAMES = {
    "hidden_size": ("hidden_size", "n_embd", "n_embed", "d_model", "dim", "model_dim", "width"),
    "num_hidden_layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "layers", "depth"),
    "num_attention_heads": ("num_attention_heads", "n_head", "n_heads", "num_heads", "heads"),
    "num_key_value_heads": ("num_key_value_heads", "n_kv_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num"),
    "intermediate_size": ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size"),
}
# Required sizes: without one of them, a class creates a model of its own default size.
_DEMANDED = ("hidden_size", "num_hidden_layers")
_INNER = ("text_config", "vision_config")


def check_original_form(raw: Mapping[str, Any], where: str) -> None:
    """Check that a configuration is not in LLaVA's original format.

    Raises:
        CheckpointError: it is.
    """
    marks = [key for key in raw if key.startswith("mm_")]
    if marks and "vision_config" not in raw:
        raise CheckpointError(
            f"The checkpoint is of LLaVA's original form (`{marks[0]}`), without `text_config` and `vision_config`.",
            where=where,
            remedy="use the converted checkpoint, such as llava-hf/llava-1.5-7b-hf for liuhaotian/llava-v1.5-7b, or "
            "convert this one with transformers' `convert_llava_weights_to_hf.py`",
        )


def check_stated(raw: Mapping[str, Any], config: Any, where: str) -> None:
    """Check that a configuration's class uses the sizes that its file states.

    Args:
        raw: the object in the file.
        config: transformers' configuration object of the file.
    Raises:
        CheckpointError: the class would use its defaults instead.
    """
    if not type(config).__module__.startswith("transformers."):
        return  # a class in the checkpoint's own code may read any key
    inner = [name for name in _INNER if name in (getattr(type(config), "sub_configs", None) or {})]
    for name in inner:
        if not isinstance(raw.get(name), dict) or not raw[name]:
            raise CheckpointError(
                f"The configuration has no `{name}`; {type(config).__name__} would describe a model of its own "
                "default sizes.",
                where=where,
                remedy="use the config.json that `save_pretrained` wrote with these weights",
            )
        _check_names(raw[name], getattr(config, name), f"{name}.", where)
    _check_names(raw, config, "", where)
    known = _keys_of(type(config))
    for size in () if inner else _DEMANDED:
        own = type(config).attribute_map.get(size, size)
        names = [name for name in dict.fromkeys((*_NAMES[size], own)) if name in known]
        if names and all(raw.get(name) is None for name in names):
            raise CheckpointError(
                f"The configuration has no `{names[0]}`; {type(config).__name__} would describe a model of its own "
                "default size.",
                where=where,
                remedy="use the config.json that `save_pretrained` wrote with these weights",
            )


def _check_names(raw: Mapping[str, Any], config: Any, prefix: str, where: str) -> None:
    """Check that keys unknown to the class do not contradict the sizes in use."""
    known, text = _keys_of(type(config)), config.get_text_config()
    for size, names in _NAMES.items():
        used = vars(text).get(text.attribute_map.get(size, size))
        for name in names:
            stated = raw.get(name)
            if name not in known and isinstance(stated, int) and used is not None and stated != used:
                raise CheckpointError(
                    f"`{prefix}{name}` is {stated}, but {type(config).__name__} does not know it and assumes that "
                    f"`{size}` is {used}.",
                    where=where,
                    remedy="the configuration is of another form: convert the checkpoint to Hugging Face's",
                )


def _keys_of(cls: type) -> frozenset[str]:
    """The keys that a configuration class uses."""
    known = set(getattr(cls, "__dataclass_fields__", {})) | set(getattr(cls, "attribute_map", {}))
    for part in cls.__mro__:
        if part.__module__.startswith("transformers."):
            known |= set(inspect.signature(part.__init__).parameters)
    return frozenset(known)
