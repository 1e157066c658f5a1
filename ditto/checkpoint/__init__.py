"""Checkpoints on disk: index, formats, names, and memory-mapped tensors."""

from ditto.checkpoint.formats import (
    VALUE_DTYPES,
    check_form,
    check_shape,
    check_stored,
    quantization_of,
    quantized_groups,
    raw_config,
)
from ditto.checkpoint.index import CheckpointIndex, TensorRecord
from ditto.checkpoint.names import match_names
from ditto.checkpoint.quantization import Group
from ditto.checkpoint.reader import CheckpointReader
from ditto.checkpoint.recipes import Recipe

__all__ = [
    "VALUE_DTYPES",
    "CheckpointIndex",
    "CheckpointReader",
    "Group",
    "Recipe",
    "TensorRecord",
    "check_form",
    "check_shape",
    "check_stored",
    "match_names",
    "quantization_of",
    "quantized_groups",
    "raw_config",
]
