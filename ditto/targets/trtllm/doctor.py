"""Comparison of Ditto's tables with an installed TensorRT-LLM.

Covers the fields of its plugins and TensorRT's values of `DataType`.
"""

from __future__ import annotations

from typing import Any

from ditto.bindings import TensorRT
from ditto.errors import ConfigError
from ditto.network.plugin import FieldType
from ditto.targets.trtllm.contract import TYPE_ID
from ditto.targets.trtllm.plugins import Gemm, GPTAttention
from ditto.targets.trtllm.versions import GEMM_FIELDS, NAMES, Fields, version

_TENSORRT_TYPES: dict[FieldType, str] = {"int8": "INT8", "int32": "INT32", "float32": "FLOAT32"}
# Wrong declarations of the plugin creators (contract, LLM 9): a field that is never read, and one that is declared as
# INT32 but read as INT8.
_UNREAD = ("layer_idx_in_cache_pool",)
_DECLARED_AS = {"block_sparse_homo_head_pattern": "INT32"}

_TENSORRT_DTYPES = {"float32": "FLOAT", "float16": "HALF", "bfloat16": "BF16"}


def differences(trt: TensorRT, installed: str) -> list[str]:
    """Differences between an installation and Ditto's tables, one line each.

    Args:
        trt: TensorRT with TensorRT-LLM's plugins loaded.
        installed: version of the installed TensorRT-LLM.
    """
    try:
        known = version(installed)
    except ConfigError:
        return [f"TensorRT-LLM {installed} is in no table; the tables are of {', '.join(NAMES)}"]
    found = _of_creator(trt, GPTAttention, known.gpt_attention) + _of_creator(trt, Gemm, GEMM_FIELDS)
    for dtype, number in TYPE_ID.items():
        name = _TENSORRT_DTYPES[str(dtype).removeprefix("torch.")]
        actual = int(getattr(trt.module.DataType, name))
        if actual != number:
            found.append(f"DataType.{name} is {actual}, Ditto says {number}")
    return found


def _of_creator(trt: TensorRT, plugin: type[GPTAttention | Gemm], ours: Fields) -> list[str]:
    registry: Any = trt.module.get_plugin_registry()
    creator = registry.get_plugin_creator(plugin.creator, plugin.version, plugin.namespace)
    if creator is None:
        return [f"{plugin.creator}: the library has no such creator, version {plugin.version}"]
    theirs = {field.name: field.type for field in creator.field_names}
    stated = dict(ours)
    missing = [name for name in stated if name not in theirs]
    unknown = [name for name in theirs if name not in stated and name not in _UNREAD]
    found = [f"{plugin.creator}: Ditto gives `{name}`, the creator has no such field" for name in missing]
    found += [f"{plugin.creator}: the creator has `{name}`, Ditto does not give it" for name in unknown]
    for name, kind in ours:
        accepted = {_TENSORRT_TYPES[kind], _DECLARED_AS.get(name, _TENSORRT_TYPES[kind])}
        if name in theirs and theirs[name] not in [getattr(trt.module.PluginFieldType, known) for known in accepted]:
            found.append(f"{plugin.creator}: `{name}` is {theirs[name]}, Ditto gives {kind}")
    return found
