"""Does a tree keep TensorRT-LLM's contract?

`violations` holds a tree against tables that were written from the contract documents, one file per version of
TensorRT-LLM (`tests/targets/trtllm/tables`); it knows nothing of how Ditto's target makes a tree. `recorder` is a
stand-in for TensorRT 10.9 and the plugin library that refuses what they would refuse. `cut` takes the plugins out of a
network, so that a TensorRT without the plugin library can judge the rest.
"""

from tests.support.conformance.cutting import cut
from tests.support.conformance.rules import Violation
from tests.support.conformance.tables import VERSIONS, Tables, load_tables
from tests.support.conformance.trees import Tree, violations

__all__ = ["VERSIONS", "Tables", "Tree", "Violation", "cut", "load_tables", "violations"]
