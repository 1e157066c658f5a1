"""Detection of the form of a checkpoint: float, quantised, an adapter, or another file format.

Where the tensors are neither the model's values nor of a quantised format in `FORMATS`, it is rejected by name.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from loguru import logger
from torch import Tensor

from ditto.checkpoint.index import CheckpointIndex, TensorRecord
from ditto.checkpoint.quantization import FORMATS, FULL_PRECISION, Group, QuantizationScheme
from ditto.checkpoint.reader import CheckpointReader
from ditto.errors import CheckpointError
from ditto.files import read_json

# Dtypes in which stored tensors are the model's values; other dtypes need a scale.
VALUE_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
# Keys of config.json, at any depth, under which quantisation tools write their settings.
_CONFIG_KEYS = ("quantization_config", "compression_config", "quant_config")
# Files next to config.json in which quantisation tools write their settings; ModelOpt's is read.
_MODELOPT_FILE = "hf_quant_config.json"
_SIDE_FILES = {
    "quant_config.json": "AWQ",
    "quantization_config.json": "AutoRound",
    "quantize_config.json": "GPTQ",
}
# Name patterns of tensors that belong to a quantised weight, by format.
_TENSOR_MARKS = {
    r"\.weight_scale_inv$": "fine-grained FP8",
    r"\.(qweight|qzeros|g_idx)$": "GPTQ or AWQ",
    r"\.(weight_scale_2|pre_quant_scale)$": "ModelOpt",
    r"\.weight_(packed|scale|zero_point|global_scale|shape|g_idx)$": "compressed-tensors or ModelOpt",
    r"\.(input|output|activation|input_global)_scale$": "compressed-tensors or ModelOpt",
    r"\.[kv]_scale$|\.kv_scale$": "scaled KV cache",
    r"\.SCB$|\.weight\.(absmax|quant_map|nested_absmax|nested_quant_map|quant_state\b.*)$": "bitsandbytes",
    r"_(blocks|scales)$": "MXFP4",
    r"\.scales$": "GPTQ, AWQ or MLX",
}
_ADAPTER_MARK = re.compile(r"\b(lora_\w+|base_layer|modules_to_save|original_module)\b")
# Directories of other tools, without Hugging Face's config.json: pattern, description, remedy.
_OTHER_FORMS = {
    "model_index.json": ("a diffusers pipeline", "give the directory of a language model"),
    "params.json": (
        "a model in Meta's or Mistral's own format",
        "convert it with transformers' `convert_llama_weights_to_hf.py` or `convert_mistral_weights_to_hf.py`, or use "
        "the converted model on the hub",
    ),
    "*.nemo": ("a NeMo archive", "export it to Hugging Face's format with NeMo"),
    "manifest.json": ("an engine tree, not a checkpoint", "give the model that it was built from"),
}


def raw_config(directory: Path) -> Mapping[str, Any]:
    """The JSON object of config.json, unchanged; empty if it cannot be read."""
    return _json_object(directory / "config.json")


def check_form(directory: Path) -> None:
    """Check that a directory holds a complete Hugging Face model, in float or in a quantised format that is read.

    Raises:
        CheckpointError: it holds an adapter, another quantised format or another file format.
    """
    if directory.is_file():
        raise CheckpointError(
            "The model is a file; a checkpoint is a directory, or a GGUF file.",
            where=str(directory),
            remedy="give the directory that config.json and the safetensors files lie in",
        )
    _check_adapter(directory)
    if not (directory / "config.json").is_file():
        for pattern, (form, remedy) in _OTHER_FORMS.items():
            if any(directory.glob(pattern)):
                raise CheckpointError(
                    f"The directory has no config.json: it holds {form}.", where=str(directory), remedy=remedy
                )
        raise CheckpointError(
            "The checkpoint directory has no config.json.",
            where=str(directory),
            remedy="give a directory that `save_pretrained` wrote, or download the checkpoint with its config.json",
        )
    quantization_of(directory)


def quantization_of(directory: Path) -> QuantizationScheme | None:
    """The quantised format that a checkpoint's configuration states; None if it states none.

    Raises:
        CheckpointError: the format is not read.
    """
    where = directory / "config.json"
    for key, stated in _stated(raw_config(directory)):
        method = str(stated.get("quant_method")).lower()
        if key == "quantization_config" and method in FORMATS:
            return FORMATS[method](stated, str(where))
        raise CheckpointError(
            f"The checkpoint is quantised: {_format_of(stated)} (`{key}`). Its tensors are not the model's values.",
            where=str(where),
            remedy=FULL_PRECISION
            if method in FORMATS
            else f"give a checkpoint in one of the formats {', '.join(FORMATS)}; or {FULL_PRECISION}",
        )
    if (directory / _MODELOPT_FILE).is_file():
        return FORMATS["modelopt"](_json_object(directory / _MODELOPT_FILE), str(directory / _MODELOPT_FILE))
    for name, tool in _SIDE_FILES.items():
        if (directory / name).is_file():
            detail = _format_of(_json_object(directory / name), tool)
            raise CheckpointError(
                f"The checkpoint is quantised: {detail}. Its tensors are not the model's values.",
                where=str(directory / name),
                remedy=FULL_PRECISION,
            )
    return None


def quantized_groups(directory: Path, index: CheckpointIndex) -> dict[str, Group]:
    """The quantised weights of a checkpoint, by the names of the float tensors that they stand for.

    Args:
        directory: directory of config.json.
    Raises:
        CheckpointError: the format is not read, or the tensors contradict the configuration.
    """
    scheme = quantization_of(directory)
    if scheme is None:
        return {}
    groups = scheme.groups(CheckpointReader(index))
    logger.info("{} quantised weights: {}", len(groups), scheme.title)
    if scheme.note is not None:
        logger.warning("{}: {}", scheme.title, scheme.note)
    return groups


def check_marks(tensors: Collection[str], where: str) -> None:
    """Check that no tensor name belongs to a quantised or adapted weight.

    Args:
        tensors: names of tensors that the model does not use.
    Raises:
        CheckpointError: at least one does.
    """
    adapters = [name for name in tensors if _ADAPTER_MARK.search(name)]
    if adapters:
        raise CheckpointError(
            f"The checkpoint holds an adapter that is not merged: {named(adapters)}.",
            where=where,
            remedy="merge it with PEFT's `merge_and_unload()` and save the model with `save_pretrained`",
        )
    for mark, form in _TENSOR_MARKS.items():
        marked = [name for name in tensors if re.search(mark, name)]
        if marked:
            raise CheckpointError(
                f"The checkpoint is quantised ({form}): {named(marked)} would be ignored.",
                where=where,
                remedy=FULL_PRECISION,
            )


def check_shape(name: str, stored: str, shape: tuple[int, ...], wanted: Tensor, where: str) -> None:
    """Check that a stored tensor has the shape of the model's tensor.

    Args:
        name: the model's parameter or buffer.
        stored: name of the tensor in the checkpoint.
        wanted: the model's tensor; only its shape is used.
        where: file of the stored tensor.
    Raises:
        CheckpointError: the shapes differ.
    """
    if shape != tuple(wanted.shape):
        raise CheckpointError(
            f"tensor `{stored}` has shape {list(shape)}, the model's `{name}` has {list(wanted.shape)}",
            where=where,
            remedy="check that config.json belongs to this checkpoint",
        )


def check_stored(name: str, stored: str, record: TensorRecord, wanted: Tensor) -> None:
    """Check that a stored tensor has the shape and a dtype of the model's tensor.

    Args:
        name: the model's parameter or buffer.
        stored: name of the tensor in the checkpoint.
        record: header entry of the stored tensor.
        wanted: the model's tensor; only its shape and dtype are used.
    Raises:
        CheckpointError: the shapes differ, or the stored dtype needs a scale.
    """
    check_shape(name, stored, record.shape, wanted, str(record.file))
    if record.dtype != wanted.dtype and wanted.is_floating_point() and record.dtype not in VALUE_DTYPES:
        raise CheckpointError(
            f"Tensor `{stored}` is stored as {str(record.dtype).removeprefix('torch.')}: the checkpoint is quantised, "
            "and these are not the model's values.",
            where=str(record.file),
            remedy=FULL_PRECISION,
        )


def named(tensors: Collection[str]) -> str:
    """Text that lists the first three tensors and counts the rest."""
    first = sorted(tensors)[:3]
    more = len(tensors) - len(first)
    return ", ".join(f"`{name}`" for name in first) + (f" and {more} more" if more else "")


def _check_adapter(directory: Path) -> None:
    if (directory / "adapter_config.json").is_file():
        adapter = _json_object(directory / "adapter_config.json")
        kind, base = adapter.get("peft_type", "PEFT"), adapter.get("base_model_name_or_path")
        raise CheckpointError(
            f"The directory holds an adapter ({kind}){f' for {base}' if base else ''}, not a whole model.",
            where=str(directory / "adapter_config.json"),
            remedy="merge it into its model with PEFT's `merge_and_unload()`, save that with `save_pretrained`, and "
            "build from the result",
        )


def _stated(config: object, prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Quantisation settings in a configuration and its nested ones, by key path."""
    for key, value in config.items() if isinstance(config, dict) else ():
        path = f"{prefix}{key}"
        mlx = key == "quantization" and isinstance(value, dict) and {"bits", "group_size", "quant_algo"} & set(value)
        if value is not None and (key in _CONFIG_KEYS or mlx):
            yield path, value if isinstance(value, dict) else {"quant_method": str(value)}
        else:
            yield from _stated(value, f"{path}.")


def _format_of(stated: Mapping[str, Any], tool: str | None = None) -> str:
    """Name of a quantisation format: the method, and the details of its variant."""
    quantization, producer = stated.get("quantization"), stated.get("producer")
    inner: Mapping[str, Any] = quantization if isinstance(quantization, dict) else stated
    maker = producer.get("name") if isinstance(producer, dict) else None
    method = stated.get("quant_method") or maker or tool
    if method is None:
        loaded = [key for key in stated if key.lstrip("_").startswith("load_in_") and stated[key]]
        method = "bitsandbytes" if loaded else "a format without a name"
    keys = ("format", "fmt", "quant_algo", "bits", "w_bit", "quant_type", "bnb_4bit_quant_type", "group_size")
    details = [f"{key} {inner[key]}" for key in keys if isinstance(inner.get(key), (str, int)) and inner[key]]
    return ", ".join([str(method), *details])


def _json_object(path: Path) -> Mapping[str, Any]:
    try:
        found = read_json(path, lenient=True)
    except (OSError, ValueError):  # reported by the code that needs its content
        return {}
    return found if isinstance(found, dict) else {}
