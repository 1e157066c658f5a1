"""From a captured graph to a simpler one that computes the same."""

from ditto.rewrite.pipeline import rewrite

__all__ = ["rewrite"]
