"""An independent witness of what TensorRT was given.

`replay` takes a real `INetworkDefinition` and computes its outputs in PyTorch. It knows nothing of Ditto: structure,
parameters and weights are read back through TensorRT's own API, and their meaning comes from TensorRT's documentation.
What it does not know, or has not looked at, it refuses.
"""

from tests.support.witness.reading import WitnessError
from tests.support.witness.replay import replay

__all__ = ["WitnessError", "replay"]
