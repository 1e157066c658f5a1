"""Checkpoints on disk: index, formats, names, and memory-mapped tensors."""

from ditto.checkpoint.formats import VALUE_DTYPES, check_form, check_stored, raw_config
from ditto.checkpoint.index import CheckpointIndex, TensorRecord
from ditto.checkpoint.names import match_names
from ditto.checkpoint.reader import CheckpointReader

__all__ = [
    "VALUE_DTYPES",
    "CheckpointIndex",
    "CheckpointReader",
    "TensorRecord",
    "check_form",
    "check_stored",
    "match_names",
    "raw_config",
]
