"""Capture of PyTorch modules as graphs of aten and Ditto operators."""

from ditto.capture.export import export
from ditto.capture.skeleton import config_in_dtype, weightless

__all__ = ["config_in_dtype", "export", "weightless"]
