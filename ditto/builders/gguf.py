"""Configuration, tokenizer and names of a GGUF file, as transformers reads them."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from loguru import logger

from ditto.checkpoint import Group
from ditto.checkpoint.gguf import read_header
from ditto.checkpoint.quantization.gguf import gguf_groups
from ditto.errors import CheckpointError

_ARCHITECTURE = "llama"  # transformers changes the tensors of each architecture in another way
_REMEDY = "build from the original Hugging Face checkpoint"
# Tokens that end an answer: end of the sequence, of a turn, of a message.
_ENDS = ("eos", "eot", "eom")
_HELD: list[tempfile.TemporaryDirectory[str]] = []  # directories live as long as the process


def described(file: Path) -> Path:
    """A directory with the configuration and the tokenizer of a GGUF file, for as long as the process lives.

    Raises:
        CheckpointError: transformers cannot read them, or does not read all that the file says of the model.
    """
    state = file.stat()
    return _described(file, state.st_size, state.st_mtime_ns)


@cache
def _described(file: Path, size: int, changed: int) -> Path:
    """The same for a file in its present state."""
    del size, changed
    header = read_header(file)
    architecture = header.metadata.get("general.architecture")
    if architecture != _ARCHITECTURE:
        raise CheckpointError(
            f"GGUF: the architecture {architecture!r} is not supported; {_ARCHITECTURE!r} is",
            where=str(file),
            remedy=_REMEDY,
        )
    from transformers import AutoConfig, AutoTokenizer

    holder = tempfile.TemporaryDirectory(prefix="ditto-gguf-")
    directory = Path(holder.name)
    try:
        config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    except ImportError as error:
        raise CheckpointError(
            "GGUF files are read with the package gguf, which is not installed",
            where=str(file),
            remedy="install gguf: pip install 'ditto-trt[gguf]'",
        ) from error
    except Exception as error:
        raise CheckpointError(
            f"transformers cannot read the GGUF file: {str(error).strip() or repr(error)}",
            where=str(file),
            remedy=_REMEDY,
        ) from error
    if config.model_type != _ARCHITECTURE:
        raise CheckpointError(
            f"GGUF: transformers reads the file as {config.model_type!r}, {_ARCHITECTURE!r} is supported",
            where=str(file),
            remedy=_REMEDY,
        )
    _check_settings(header.metadata, config, file)
    vars(config).pop("quantization_config", None)
    config.architectures = config.architectures or ["LlamaForCausalLM"]
    config.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    ids = {name: header.metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", *_ENDS)}
    ends = list(dict.fromkeys(number for name in _ENDS if (number := ids[name]) is not None))
    stated = {"bos_token_id": ids["bos"], "eos_token_id": ends if len(ends) > 1 else next(iter(ends), None)}
    stated = {name: value for name, value in stated.items() if value is not None}
    (directory / "generation_config.json").write_text(json.dumps(stated))
    _HELD.append(holder)
    pre = header.metadata.get("tokenizer.ggml.pre", "default")
    if pre not in ("default", "llama-bpe"):
        logger.warning("GGUF: transformers splits text without the file's rule {!r}; tokens may differ", pre)
    return directory


def _check_settings(metadata: Any, config: Any, file: Path) -> None:
    """Check that the configuration says all that the file says of the model."""
    theta = getattr(config, "rope_parameters", None) or {}
    wanted = {
        "context_length": config.max_position_embeddings,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "embedding_length": config.hidden_size,
        "rope.dimension_count": (head := getattr(config, "head_dim", None))
        or config.hidden_size // config.num_attention_heads,
        "rope.freq_base": theta.get("rope_theta") or getattr(config, "rope_theta", None),
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "attention.key_length": head,
        "attention.value_length": head,
        "vocab_size": config.vocab_size,
        "rope.scaling.type": "none",
    }
    for key, value in metadata.items():
        name = key.removeprefix(f"{_ARCHITECTURE}.")
        if name != key and (name not in wanted or wanted[name] != value):
            raise CheckpointError(
                f"GGUF: `{key}` is {value!r}, which transformers does not read into its configuration",
                where=str(file),
                remedy=_REMEDY,
            )
    if any(f"{_ARCHITECTURE}.{name}" not in metadata for name in ("rope.freq_base", "attention.head_count_kv")):
        logger.warning("GGUF: the file lacks rope.freq_base or attention.head_count_kv; transformers' default is taken")


def groups_of(file: Path, model: Any) -> dict[str, Group]:
    """The weights of a GGUF file by the names of its model.

    Raises:
        CheckpointError: a tensor has no place in the model.
    """
    from gguf import MODEL_ARCH, get_tensor_name_map

    config = model.config
    table = get_tensor_name_map(MODEL_ARCH.LLAMA, config.num_hidden_layers)
    names: dict[str, str] = {}
    for name in model.state_dict():
        module, _, part = name.rpartition(".")
        names[f"{table.get_name(module)}.{part}"] = name
    heads: dict[str, int] = {}
    for name in names.values():
        if ".q_proj." in name:
            heads[name] = config.num_attention_heads
        elif ".k_proj." in name:
            heads[name] = config.num_key_value_heads
    return gguf_groups(read_header(file).tensors, names, heads, str(file))
