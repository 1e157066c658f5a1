"""Random checkpoints of real shapes, written shard by shard without ever holding the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ditto.capture import weightless

SHARD_BYTES = 2 * 10**9


def write(
    folder: Path, cls: type, config: Any, dtype: torch.dtype = torch.float16, device: torch.device | str = "cpu"
) -> Path:
    """Write `config` and random weights for `cls` into a folder, unless it holds them already.

    Args:
        device: draws the numbers; others than the CPU's give other numbers, much sooner.
    """
    if (folder / "model.safetensors.index.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    config.architectures = [cls.__name__]
    config.save_pretrained(folder)
    with weightless(dtype):
        model = cls(config)
    model.tie_weights()
    generator = torch.Generator(device).manual_seed(0)
    mapping: dict[str, str] = {}
    shard: dict[str, torch.Tensor] = {}
    count = 0

    def flush() -> None:
        nonlocal count, shard
        count += 1
        name = f"model-{count:05d}.safetensors"
        save_file(shard, folder / name)
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
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": mapping}))
    return folder
