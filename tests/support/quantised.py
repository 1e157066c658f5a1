"""Quantised checkpoints, written after the published layout of each format, number by number."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from loguru import logger
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from ditto.network import Literals, resolve

# Where AutoAWQ puts each of eight neighbouring columns within a word, counted in nibbles from the lowest.
AWQ_NIBBLES = (0, 4, 1, 5, 2, 6, 3, 7)


@frozen
class Numbers:
    """A weight [rows, columns] in small numbers: (values - zeros) * scales, in blocks.

    Args:
        zeros: None for symmetric numbers.
        groups: the column of scales of each column of values.
    """

    values: Tensor
    scales: Tensor
    zeros: Tensor | None
    groups: Tensor

    @property
    def meaning(self) -> Tensor:
        """What the numbers stand for, in float64."""
        rows = torch.arange(self.values.shape[0]) * self.scales.shape[0] // self.values.shape[0]
        scales = self.scales.double()[rows][:, self.groups]
        zeros = 0 if self.zeros is None else self.zeros.double()[rows][:, self.groups]
        return (self.values.double() - zeros) * scales


def integers(
    weight: Tensor,
    bits: int,
    group: int,
    symmetric: bool = True,
    dtype: torch.dtype = torch.float16,
    groups: Tensor | None = None,
) -> Numbers:
    """A weight in signed integers, with scales of `dtype` for each row and group of columns."""
    rows, columns = weight.shape
    groups = torch.arange(columns) // group if groups is None else groups
    count, low, high = int(groups.max()) + 1, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    values, scales = torch.empty(rows, columns), torch.empty(rows, count)
    zeros = torch.zeros(rows, count)
    for index in range(count):
        part = weight[:, groups == index]
        if symmetric:
            scale = part.abs().amax(1) / high
        else:
            least, most = part.amin(1).clamp(max=0), part.amax(1).clamp(min=0)
            scale = (most - least) / (high - low)
        scale = scales[:, index] = scale.to(dtype).float()
        if not symmetric:
            zeros[:, index] = (low - least / scale).round().clamp(low, high)
        values[:, groups == index] = (part / scale[:, None] + zeros[:, index, None]).round().clamp(low, high)
    return Numbers(values.to(torch.int8), scales.to(dtype), None if symmetric else zeros.to(torch.int8), groups)


def fp8(weight: Tensor, block: tuple[int, int], dtype: torch.dtype = torch.float32) -> Numbers:
    """A weight in float8_e4m3fn, with scales of `dtype` for blocks that divide it."""
    rows, columns = weight.shape
    blocks = weight.reshape(rows // block[0], block[0], columns // block[1], block[1])
    scales = (blocks.abs().amax((1, 3)) / 448).to(dtype)
    values = (blocks / scales.float()[:, None, :, None]).clamp(-448, 448).reshape(rows, columns)
    return Numbers(values.to(torch.float8_e4m3fn), scales, None, torch.arange(columns) // block[1])


def packed(rows: Tensor, bits: int, nibbles: Sequence[int] | None = None) -> Tensor:
    """Signed integers packed along the last axis into int32 words, unsigned by an offset; short words get zeros.

    Args:
        nibbles: the place in a word of each of its integers; the lowest first by default.
    """
    count = 32 // bits
    places = torch.tensor(list(nibbles or range(count)))
    unsigned = functional.pad(rows.long() + 2 ** (bits - 1), (0, -rows.shape[1] % count))
    words = (unsigned.unflatten(1, (-1, count)) << bits * places).sum(-1)
    return words.to(torch.int32)  # wraps, as in C


Tensors = dict[str, Tensor]
Written = Callable[[Tensor], tuple[Tensors, Tensor]]
"""From a weight to the tensors that stand for it, by their last names, and what they mean."""


def pack_quantized(
    bits: int = 4, group: int = 32, symmetric: bool = True, dtype: torch.dtype = torch.bfloat16, order: bool = False
) -> Written:
    """compressed-tensors' `pack-quantized`; with `order`, columns belong to groups in another order."""

    def write(weight: Tensor) -> tuple[Tensors, Tensor]:
        columns = weight.shape[1]
        groups = torch.randperm(columns) // group if order else None
        found = integers(weight, bits, columns if group < 0 else group, symmetric, dtype, groups)
        tensors = {
            "weight_packed": packed(found.values, bits),
            "weight_scale": found.scales,
            "weight_shape": torch.tensor(weight.shape),
        }
        if found.zeros is not None:
            tensors["weight_zero_point"] = packed(found.zeros.T, bits).T.contiguous()
        if order:
            tensors["weight_g_idx"] = found.groups.to(torch.int32)
        return tensors, found.meaning

    return write


def int_quantized(symmetric: bool = True) -> Written:
    """compressed-tensors' `int-quantized`: int8 by row."""

    def write(weight: Tensor) -> tuple[Tensors, Tensor]:
        found = integers(weight, 8, weight.shape[1], symmetric, torch.bfloat16)
        tensors = {"weight": found.values, "weight_scale": found.scales}
        return tensors if found.zeros is None else {**tensors, "weight_zero_point": found.zeros}, found.meaning

    return write


def float_quantized(strategy: str, static: bool = False) -> Written:
    """compressed-tensors' `float-quantized`: FP8 by tensor, row or block of 16 x 32."""

    def write(weight: Tensor) -> tuple[Tensors, Tensor]:
        rows, columns = weight.shape
        block = {"tensor": (rows, columns), "channel": (1, columns), "block": (16, 32)}[strategy]
        found = fp8(weight, block, torch.bfloat16)
        scales = found.scales.flatten() if strategy == "tensor" else found.scales
        tensors = {"weight": found.values, "weight_scale": scales}
        return {**tensors, "input_scale": torch.tensor([0.1])} if static else tensors, found.meaning

    return write


def fine_grained(block: tuple[int, int] = (16, 32), dtype: torch.dtype = torch.float32) -> Written:
    """Fine-grained FP8, as Qwen and DeepSeek publish it."""

    def write(weight: Tensor) -> tuple[Tensors, Tensor]:
        found = fp8(weight, block, dtype)
        return {"weight": found.values, "weight_scale_inv": found.scales}, found.meaning

    return write


def awq(group: int = 32) -> Written:
    """AutoAWQ's `gemm`."""

    def write(weight: Tensor) -> tuple[Tensors, Tensor]:
        found = integers(weight, 4, group, symmetric=False)
        assert found.zeros is not None
        tensors = {
            "qweight": packed(found.values.T, 4, AWQ_NIBBLES),
            "qzeros": packed(found.zeros.T, 4, AWQ_NIBBLES),
            "scales": found.scales.T.contiguous(),
        }
        return tensors, found.meaning

    return write


def gptq(bits: int = 4, group: int = 32, symmetric: bool = True, version: int = 1, order: bool = False) -> Written:
    """GPTQ of either version; with `order`, columns belong to groups in the order of their activations."""

    def write(weight: Tensor) -> tuple[Tensors, Tensor]:
        columns = weight.shape[1]
        groups = torch.randperm(columns) // group if order else None
        found = integers(weight, bits, group, symmetric, groups=groups)
        zeros = torch.zeros_like(found.scales, dtype=torch.int64) if found.zeros is None else found.zeros.long()
        if version == 1:
            zeros = zeros.clamp(min=1 - 2 ** (bits - 1))  # the least zero point cannot be stored less one
            scales = found.scales.double()[:, found.groups]
            meaning = (found.values.double() - zeros.double()[:, found.groups]) * scales
        else:
            meaning = found.meaning
        tensors = {
            "qweight": packed(found.values, bits).T,
            "qzeros": packed((zeros - int(version == 1)).T, bits),
            "scales": found.scales.T,
            "g_idx": found.groups.to(torch.int32),
        }
        return {name: tensor.contiguous() for name, tensor in tensors.items()}, meaning

    return write


E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def nvfp4(of_matrix: str, divides: bool) -> Written:
    """NVFP4: E2M1 values, FP8 scales of 16 columns, and a scale of the matrix in a tensor named `of_matrix`.

    Args:
        divides: whether scales are divided by that of the matrix, as in compressed-tensors; ModelOpt multiplies.
    """

    def write(weight: Tensor) -> tuple[Tensors, Tensor]:
        groups = weight.unflatten(1, (-1, 16))
        largest = groups.abs().amax(-1)
        whole = (6 * 448 / largest.max()) if divides else largest.max() / (6 * 448)
        scales = (largest / 6 * whole if divides else largest / 6 / whole).to(torch.float8_e4m3fn)
        # Both libraries join the scales in float32.
        exact = (scales.float() / whole if divides else scales.float() * whole).double()
        codes = (groups.double() / exact[..., None]).abs()[..., None].sub(E2M1).abs().argmin(-1)
        signs = (groups < 0).long()
        nibbles = (codes + 8 * signs).flatten(1)
        values = (E2M1.double()[codes] * (1 - 2 * signs) * exact[..., None]).flatten(1)
        bytes_ = (nibbles[:, 0::2] | nibbles[:, 1::2] << 4).to(torch.uint8)
        name = "weight_packed" if divides else "weight"
        return {name: bytes_, "weight_scale": scales, of_matrix: whole.reshape([1] * divides)}, values

    return write


def modelopt(algorithm: str, pre_scaled: bool = False, group: int = 16) -> Written:
    """ModelOpt's files; with `pre_scaled`, inputs of a layer are multiplied by a scale of each column."""

    def write(weight: Tensor) -> tuple[Tensors, Tensor]:
        rows, columns = weight.shape
        before = torch.rand(columns) + 0.5
        weight = weight / before if pre_scaled else weight
        if algorithm == "NVFP4":
            tensors, meaning = nvfp4("weight_scale_2", divides=False)(weight)
        elif algorithm == "W4A16_AWQ":
            found = integers(weight, 4, group, dtype=torch.float32)
            nibbles = found.values.long() & 15
            packed_rows = (nibbles[0::2] | nibbles[1::2] << 4).to(torch.uint8)
            tensors, meaning = {"weight": packed_rows, "weight_scale": found.scales}, found.meaning
        elif algorithm == "W8A8_SQ_PER_CHANNEL":
            found = integers(weight, 8, columns, dtype=torch.float32)
            tensors, meaning = {"weight": found.values, "weight_scale": found.scales.flatten()}, found.meaning
        else:
            by_row = algorithm == "FP8_PER_CHANNEL_PER_TOKEN"
            found = fp8(weight, (1 if by_row else rows, columns))
            scales = found.scales.flatten() if by_row else found.scales.squeeze()
            tensors, meaning = {"weight": found.values, "weight_scale": scales}, found.meaning
            tensors |= {} if by_row else {"input_scale": torch.tensor(0.1)}
        if not pre_scaled:
            return tensors, meaning
        # Rounded once to float32 before the scale of the columns, as the weight is.
        return {**tensors, "pre_quant_scale": before}, meaning.float() * before

    return write


def compressed_config(
    weights: Mapping[str, Any], form: str = "pack-quantized", targets: Sequence[str] = ("Linear",), **more: Any
) -> dict[str, Any]:
    """compressed-tensors' configuration with one group."""
    group = {"targets": list(targets), "weights": dict(weights), "input_activations": None, "output_activations": None}
    return {
        "quant_method": "compressed-tensors",
        "format": form,
        "config_groups": {"group_0": {**group, **more.pop("group", {})}},
        "ignore": ["lm_head"],
        "kv_cache_scheme": None,
        "quantization_status": "compressed",
        **more,
    }


def linears(model: nn.Module, within: str = "layers") -> dict[str, nn.Linear]:
    """The linear layers of a decoder, without its head."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and within in name and "vision" not in name
    }


def save_quantised(
    model: Any, directory: Path, config: Mapping[str, Any], write: Written | Callable[[str], Written | None]
) -> Any:
    """Save a model with quantised linear layers, and return what it means: a copy with the dequantised weights.

    Args:
        write: how to write a weight, or a function that says so by the module's name.
    """
    meaning = copy.deepcopy(model)
    model.save_pretrained(directory)
    path = directory / "model.safetensors"
    tensors = load_file(path)
    by_data = {tensor.numpy().tobytes(): name for name, tensor in tensors.items()}
    for name, module in linears(model).items():
        chosen = write(name) if getattr(write, "__name__", "") != "write" else write
        if chosen is None:
            continue
        parts, values = chosen(module.weight.detach())  # type: ignore[operator, arg-type]
        stored = by_data[module.weight.detach().numpy().tobytes()]
        del tensors[stored]
        tensors.update({f"{stored.removesuffix('weight')}{part}": tensor for part, tensor in parts.items()})
        meaning.get_submodule(name).weight.data = values.float()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})
    stated = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**stated, "quantization_config": dict(config)}))
    return meaning


def loaded_equals(source: Any, meaning: nn.Module) -> None:
    """Check every parameter of a loaded checkpoint, in float32, against a model."""
    loaded = source.load(torch.float32)
    wanted = dict(meaning.named_parameters())
    for name, parameter in loaded.model.named_parameters():
        found = resolve(loaded.weights[id(parameter)], loaded.tensors, Literals())
        assert torch.equal(found, wanted[name].detach()), name


def warnings_of(source: Any) -> str:
    """What is warned about while a checkpoint's quantised weights are read."""
    lines: list[str] = []
    logger.enable("ditto")
    handler = logger.add(lines.append, level="WARNING", format="{message}")
    try:
        _ = source.groups
    finally:
        logger.remove(handler)
        logger.disable("ditto")
    return "".join(lines)
