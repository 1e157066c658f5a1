"""Passes on networks that preserve their results: simplification, GPU optimizations, partitioning."""

from ditto.passes.network_pass import NetworkPass, PassResult
from ditto.passes.pipeline import SIMPLIFY, run_passes

__all__ = ["SIMPLIFY", "NetworkPass", "PassResult", "run_passes"]
