"""Emission of a network, and compilation, with a recorder in TensorRT's place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ditto.arguments import DynamicDimension
from ditto.configs import TensorRTConfig
from ditto.engine import Phase, Profile
from ditto.network import Network
from ditto.network.weight import Stored, leaves
from ditto.targets.compile import compile_networks
from ditto.targets.emit import Emission, Messages
from tests.support.recorder.definition import Definition
from tests.support.recorder.module import recording_tensorrt


class Zeros:
    """A checkpoint that has what a network asks for, all zeros."""

    def __init__(self, network: Network) -> None:
        found = (leaf for constant in network.constants() for leaf in leaves(constant.weight))
        self._known = {leaf.name: leaf for leaf in found if isinstance(leaf, Stored)}

    def tensor(self, name: str) -> torch.Tensor:
        return torch.zeros(self._known[name].shape, dtype=self._known[name].dtype)

    def release(self) -> None:
        """Nothing is held."""


def recorded(network: Network, version: str) -> Definition:
    """A network in a recorder that has the plugin library of a version.

    Raises:
        BuildError: the recorder refuses it.
    """
    trt = recording_tensorrt(version)
    messages = Messages(trt.module)
    flags = 1 << int(trt.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    definition = trt.module.Builder(messages.log).create_network(flags)
    Emission(trt, definition, Zeros(network), messages).emit(network)
    return definition


def compiled(
    network: Network,
    profiles: Mapping[str, Mapping[str, Sequence[int]]],
    version: str,
    path: Path,
    source: Any = None,
) -> tuple[Definition, Any]:
    """What a recorder was given to build, with its builder configuration.

    Raises:
        BuildError: the recorder refuses it.
    """
    trt = recording_tensorrt(version)
    made = [
        Profile(Phase.MIXED, {name: DynamicDimension(name, *sizes) for name, sizes in ranges.items()})
        for ranges in profiles.values()
    ]
    compile_networks([network], made, source or Zeros(network), trt, TensorRTConfig(), (), [path])
    ((definition, config),) = trt.module.built
    return definition, config
