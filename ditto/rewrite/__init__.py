"""Rewrites that simplify a captured graph without changing its results."""

from ditto.rewrite.pipeline import rewrite

__all__ = ["rewrite"]
