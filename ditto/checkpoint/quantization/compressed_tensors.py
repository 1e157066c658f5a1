"""compressed-tensors: integer, FP8 and NVFP4 weights of llm-compressor, with a scheme for each kind of module."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from attrs import frozen
from typing_extensions import override

from ditto.checkpoint.quantization.scheme import (
    SCALE_DTYPES,
    Group,
    ModuleTensors,
    QuantizationScheme,
    column,
    e2m1_matrix,
    modules_with,
    quantized,
    stated_int,
    transposed,
)
from ditto.checkpoint.reader import CheckpointReader
from ditto.network.quantized import QuantizedWeight
from ditto.network.weight import Weight, fold

_FORMATS = (
    "pack-quantized",
    "int-quantized",
    "float-quantized",
    "naive-quantized",
    "nvfp4-pack-quantized",
    "mixed-precision",
)
_ACTIVATION_PARTS = ("input_scale", "input_global_scale", "input_zero_point", "output_scale", "output_zero_point")


@frozen
class ModuleScheme:
    """How the weights of some modules are quantised.

    Args:
        targets: names, patterns (`re:...`) or classes of the modules.
        bits: size of a value, 4 or 8.
        is_float: whether values are FP8 or FP4 (E2M1) instead of integers.
        strategy: `tensor`, `channel`, `group` or `block`.
        block: rows and columns of a block, or columns of a group.
        is_symmetric: whether there are no zero points.
    """

    targets: tuple[str, ...]
    bits: int
    is_float: bool
    strategy: str
    block: tuple[int, int]
    is_symmetric: bool

    def block_of(self, rows: int, columns: int) -> tuple[int, int]:
        """The size of blocks in a matrix."""
        sizes = {"tensor": (rows, columns), "channel": (1, columns)}
        return sizes.get(self.strategy, self.block)


@frozen
class CompressedTensors(QuantizationScheme):
    """Files of compressed-tensors with integers (packed or not), FP8 or FP4 values.

    Args:
        schemes: for groups of modules.
        ignored: names and patterns of modules that are not quantised.
        has_activations: whether activations are quantised, too.
    """

    title: ClassVar[str] = "compressed-tensors"

    schemes: tuple[ModuleScheme, ...]
    ignored: tuple[str, ...]
    has_activations: bool

    @staticmethod
    def of(config: Mapping[str, Any], where: str) -> CompressedTensors:
        """The scheme of a `quantization_config`.

        Raises:
            CheckpointError: it is a variant that is not read.
        """
        empty = CompressedTensors(where, (), (), False)
        stated = config.get("config_groups")
        groups = list(stated.values()) if isinstance(stated, dict) else []
        if not groups or not all(isinstance(group, dict) for group in groups):
            raise empty.refuse("the configuration has no `config_groups`")
        for name in (config.get("format"), *(group.get("format") for group in groups)):
            if name is not None and name not in _FORMATS:
                raise empty.refuse(f"the format {name!r} is not read, {', '.join(_FORMATS)} are")
        if config.get("quantization_status", "compressed") != "compressed":
            raise empty.refuse(f"the status is {config['quantization_status']!r}, not 'compressed'")
        sparsity = config.get("sparsity_config") or {}
        if not isinstance(sparsity, dict) or sparsity.get("format", "dense") != "dense":
            raise empty.refuse("sparse weights are not read")
        for name in ("kv_cache_scheme", "transform_config"):
            if config.get(name):
                raise empty.refuse(f"`{name}` is not read")
        ignored = config.get("ignore") or []
        return CompressedTensors(
            where,
            tuple(_module_scheme(empty, group) for group in groups),
            tuple(str(name) for name in ignored),
            any(group.get("input_activations") or group.get("output_activations") for group in groups),
        )

    @property
    @override
    def note(self) -> str | None:
        if not self.has_activations:
            return None
        return "activations are not quantised: products are computed with the weights alone quantised"

    @override
    def groups(self, reader: CheckpointReader) -> dict[str, Group]:
        found: dict[str, Group] = {}
        for module in modules_with(self, reader, "weight_scale"):
            scheme = self._scheme_of(module)
            weight = _packed(module, scheme) if "weight_packed" in module.records else _plain(module, scheme)
            module.ignore(*_ACTIVATION_PARTS)
            found[f"{module.name}.weight"] = module.group(weight)
        return found

    def _scheme_of(self, module: ModuleTensors) -> ModuleScheme:
        """The scheme of a module: by its name, else by a pattern, else the one for a class."""
        if _is_named(module.name, self.ignored):
            raise module.refuse("is quantised, and the configuration lists it under `ignore`")
        by_class = [scheme for scheme in self.schemes if any(re.fullmatch(r"\w+", name) for name in scheme.targets)]
        by_name = [scheme for scheme in self.schemes if _is_named(module.name, scheme.targets)]
        found = by_name or by_class
        if not found or (len(found) > 1 and len(set(found)) > 1):
            raise module.refuse(f"is quantised, and {len(found)} groups of the configuration are for it")
        return found[0]


def _is_named(module: str, targets: Iterable[str]) -> bool:
    """Whether a module's name is among names and patterns."""
    return any(
        re.match(target[3:], module) is not None if target.startswith("re:") else target == module for target in targets
    )


def _module_scheme(whole: CompressedTensors, group: Mapping[str, Any]) -> ModuleScheme:
    weights, targets = group.get("weights"), group.get("targets")
    if not isinstance(weights, dict) or not isinstance(targets, list):
        raise whole.refuse("a group of the configuration has no `weights` or no `targets`")
    kind, bits, strategy = weights.get("type", "int"), stated_int(weights, "num_bits", 8), weights.get("strategy")
    size, sizes = stated_int(weights, "group_size"), weights.get("block_structure")
    if strategy is None:
        strategy = "group" if size else "tensor"
    if (kind, bits) not in (("int", 4), ("int", 8), ("float", 4), ("float", 8)):
        raise whole.refuse(f"weights of {bits} bits and type {kind!r} are not read")
    if strategy == "tensor_group" and kind == "float" and bits == 4:  # NVFP4: groups, and a scale of the matrix
        strategy = "group"
    elif kind == "float" and bits == 4:
        raise whole.refuse(f"FP4 with the strategy {strategy!r} is not read, 'tensor_group' (NVFP4) is")
    if strategy == "group" and size == -1:
        strategy = "channel"
    block = (1, size or 0) if strategy == "group" else (1, 1)
    if strategy == "block":
        is_pair = isinstance(sizes, list) and len(sizes) == 2 and all(type(part) is int for part in sizes)
        block = (sizes[0], sizes[1]) if is_pair and sizes is not None else (0, 0)
    if strategy not in ("tensor", "channel", "group", "block") or min(block) < 1:
        raise whole.refuse(f"the strategy {strategy!r} with group_size {size} and blocks {sizes} is not read")
    symmetric = weights.get("symmetric", True) is True
    return ModuleScheme(tuple(map(str, targets)), bits or 8, kind == "float", strategy, block, symmetric)


def _packed(module: ModuleTensors, scheme: ModuleScheme) -> QuantizedWeight:
    """Integers packed into words along the columns, and zero points along the rows."""
    if scheme.is_float and scheme.bits == 4:
        return _nvfp4(module, scheme)
    if scheme.is_float:
        raise module.refuse("has packed values, and the configuration says FP8")
    packed = module.stored("weight_packed", (torch.int32,), 2)
    shape = module.values("weight_shape").flatten().tolist() if "weight_shape" in module.records else []
    rows, words = packed.shape
    if len(shape) != 2 or shape[0] != rows or -(-shape[1] * scheme.bits // 32) != words:
        raise module.refuse(f"has packed values {list(packed.shape)} for a weight of shape {shape}")
    columns = int(shape[1])
    values = _cut(fold("unpack", packed, scheme.bits, ()), 1, columns)
    zeros = None
    if not scheme.is_symmetric:
        words_of_zeros = module.stored("weight_zero_point", (torch.int32,), 2)
        zeros = transposed(_cut(fold("unpack", transposed(words_of_zeros), scheme.bits, ()), 1, rows))
    return _checked(module, scheme, values, zeros)


def _nvfp4(module: ModuleTensors, scheme: ModuleScheme) -> QuantizedWeight:
    """Two E2M1 values in a byte; scales of groups in FP8, to be divided by one of the matrix."""
    if not scheme.is_symmetric:
        raise module.refuse("has FP4 values, and the configuration says that it is not symmetric")
    values = e2m1_matrix(module.stored("weight_packed", (torch.uint8,), 2))
    of_groups = module.stored("weight_scale", (torch.float8_e4m3fn,), 2)
    of_matrix = column(module.stored("weight_global_scale", (torch.float32,), 0, 1))
    scales = fold("divide", fold("cast", of_groups, torch.float32), of_matrix)
    return quantized(module, values, scales, bits=8, block=scheme.block)


def _plain(module: ModuleTensors, scheme: ModuleScheme) -> QuantizedWeight:
    """Values in a dtype of their own, one by one."""
    if scheme.is_float and scheme.bits == 4:
        raise module.refuse("has no `weight_packed`, and the configuration says FP4")
    values = module.stored("weight", (torch.float8_e4m3fn if scheme.is_float else torch.int8,), 2)
    zeros = None
    if not scheme.is_symmetric:
        zeros = column(module.stored("weight_zero_point", (torch.int8,), 0, 1, 2))
    return _checked(module, scheme, values, zeros)


def _checked(module: ModuleTensors, scheme: ModuleScheme, values: Weight, zeros: Weight | None) -> QuantizedWeight:
    if scheme.is_symmetric and "weight_zero_point" in module.records:
        raise module.refuse("has zero points, and the configuration says that it is symmetric")
    scales = column(module.stored("weight_scale", SCALE_DTYPES, 0, 1, 2))
    rows, columns = values.shape
    block = scheme.block_of(rows, columns)
    groups = module.column_groups("weight_g_idx", columns, block[1])
    return quantized(module, values, scales, zeros, groups, bits=scheme.bits, block=block)


def _cut(weight: Weight, axis: int, size: int) -> Weight:
    """The first `size` entries of an axis, without the padding of the last word."""
    return weight if weight.shape[axis] == size else fold("slice", weight, axis, 0, size, 1)
