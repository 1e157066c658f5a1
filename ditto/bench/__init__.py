"""How fast a tree is, beside the model that it came from."""

from ditto.bench.plan import Plan
from ditto.bench.report import Report
from ditto.bench.suite import bench

__all__ = ["Plan", "Report", "bench"]
