"""From a network to one that computes the same: simpler, faster on some GPU, or in segments."""

from ditto.passes.network_pass import NetworkPass, PassResult
from ditto.passes.pipeline import SIMPLIFY, run_passes

__all__ = ["SIMPLIFY", "NetworkPass", "PassResult", "run_passes"]
