"""Capture of PyTorch modules as graphs of aten and Ditto operators."""

from ditto.capture.export import export
from ditto.capture.skeleton import weightless

__all__ = ["export", "weightless"]
