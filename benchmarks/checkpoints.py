"""Checkpoints of real shapes, written without ever holding the model: of random numbers, or of holes."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ditto.capture import weightless

SHARD_BYTES = 2 * 10**9


def write(
    directory: Path, cls: type, config: Any, dtype: torch.dtype = torch.float16, device: torch.device | str = "cpu"
) -> Path:
    """Write `config` and random weights for `cls` into a directory, unless it holds them already.

    Args:
        device: draws the numbers; others than the CPU's give other numbers, much sooner.
    """
    if (directory / "model.safetensors.index.json").exists():
        return directory
    model = _described(directory, cls, config, dtype)
    generator = torch.Generator(device).manual_seed(0)
    mapping: dict[str, str] = {}
    shard: dict[str, torch.Tensor] = {}
    count = 0

    def flush() -> None:
        nonlocal count, shard
        count += 1
        name = f"model-{count:05d}.safetensors"
        save_file(shard, directory / name)
        mapping.update(dict.fromkeys(shard, name))
        shard = {}

    for name, parameter in model.named_parameters():
        scale = parameter.shape[-1] ** -0.5 if parameter.dim() > 1 else 0.02
        values = torch.empty(parameter.shape, device=device).normal_(generator=generator).mul_(scale)
        norm = parameter.dim() == 1 and "norm" in name and name.endswith("weight")
        shard[name] = (values + 1.0 if norm else values).to("cpu", dtype)
        if sum(tensor.nbytes for tensor in shard.values()) > SHARD_BYTES:
            flush()
    if shard:
        flush()
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": mapping}))
    return directory


def write_hollow(directory: Path, cls: type, config: Any, dtype: torch.dtype = torch.float16) -> Path:
    """Write `config` and a file of the size that weights for `cls` have, with their header and holes for their numbers:
    it takes no room on the disk, and reads as zeros."""
    model = _described(directory, cls, config, dtype)
    kind = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}[dtype]
    header: dict[str, Any] = {}
    end = 0
    for name, parameter in model.named_parameters():
        start, end = end, end + parameter.numel() * dtype.itemsize
        header[name] = {"dtype": kind, "shape": list(parameter.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with (directory / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(file.tell() + end)
    return directory


def _described(directory: Path, cls: type, config: Any, dtype: torch.dtype) -> Any:
    """The model without numbers, its configuration written into a new directory."""
    directory.mkdir(parents=True, exist_ok=True)
    config.architectures = [cls.__name__]
    config.save_pretrained(directory)
    with weightless(dtype):
        model: Any = cls(config)
    model.tie_weights()
    return model
