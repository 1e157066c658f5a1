"""An engine to be compiled, in words that another process understands."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from attrs import frozen
from cattrs import Converter

from ditto.checkpoint import CheckpointIndex, CheckpointReader
from ditto.configs import TensorRTConfig
from ditto.network import Network, TensorSource, load
from ditto.network.outside import with_weights_outside
from ditto.targets.compile import Profile
from ditto.targets.registry import target
from ditto.targets.target import Target


@frozen(kw_only=True)
class Order:
    """An engine to be compiled from the files of its network.

    Args:
        component: its name.
        target: by name.
        network: the folder with `network.json` and `network.safetensors`, as described: with all weights.
        outside: the engine takes large weights as inputs.
        checkpoint: the folder of the checkpoint, None for a model in memory, which no other process can compile.
        profiles, tensorrt, capabilities: as `Target.compile` takes them.
        engine: the file to be written.
        work: what it costs, in profiles times layers.
    """

    component: str
    target: str
    network: str
    outside: bool
    checkpoint: str | None
    profiles: tuple[Profile, ...]
    tensorrt: TensorRTConfig
    capabilities: tuple[str, ...]
    engine: str
    work: int

    def text(self) -> str:
        """As one line."""
        return json.dumps(_converter().unstructure(self))

    @staticmethod
    def parse(text: str) -> Order:
        """What `text` gave."""
        return _converter().structure(json.loads(text), Order)

    def fulfil(self) -> str:
        """Compile it; returns the library that did, and its version.

        Raises:
            DittoError: as `Target.compile`, or a file cannot be read.
        """
        network = load(Path(self.network, "network.json"), Path(self.network, "network.safetensors"))
        if self.outside:
            network, _ = with_weights_outside(network)
        assert self.checkpoint is not None
        source = CheckpointReader(CheckpointIndex.open(Path(self.checkpoint)))
        return self.fulfil_with(target(self.target), network, source)

    def fulfil_with(self, chosen: Target, network: Network, source: TensorSource) -> str:
        """Compile it where its target, network and numbers are at hand.

        Args:
            network: what TensorRT is given: without the weights that are outside.
        """
        where = Path(self.engine)
        return chosen.compile(network, self.profiles, source, self.tensorrt, self.capabilities, where)


@cache
def _converter() -> Converter:
    return Converter(forbid_extra_keys=True)
