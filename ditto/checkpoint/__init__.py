"""Checkpoints on disk: what they hold, and their tensors without copies."""

from ditto.checkpoint.index import CheckpointIndex, TensorRecord
from ditto.checkpoint.names import match_names
from ditto.checkpoint.reader import CheckpointReader

__all__ = ["CheckpointIndex", "CheckpointReader", "TensorRecord", "match_names"]
