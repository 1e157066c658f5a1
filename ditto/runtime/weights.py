"""The numbers of a tree's weights: from the checkpoint that it was built from, or from the tree itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from ditto.checkpoint import CheckpointIndex, CheckpointReader
from ditto.engine import EngineTree
from ditto.errors import CheckpointError, TreeError
from ditto.network import Network, TensorSource, load, resolve
from ditto.network.layers import Constant


def network_of(tree: EngineTree, name: str) -> Network:
    """What a component computes.

    Raises:
        TreeError: its files cannot be read.
    """
    return load(tree.checked(name, "network.json"), tree.checked(name, "network.safetensors"))


def bound_weights(tree: EngineTree, name: str) -> Iterator[tuple[str, Tensor]]:
    """The weights that a component's engine takes as inputs, one at a time: input name, numbers on the CPU.

    What the checkpoint holds as it is comes as a view of the memory-mapped file, not to be written to; what is folded
    (q/k/v in one, another dtype) is computed here, and can be let go of before the next.

    Raises:
        TreeError, CheckpointError: the network or the checkpoint cannot be read, or is another one.
    """
    outside = tree.component(name).outside
    if not outside:
        return
    network, source = network_of(tree, name), weights_of(tree, name)
    constants = {node.outputs[0]: node.layer for node in network.nodes if isinstance(node.layer, Constant)}
    for input_name, value in outside.items():
        if value not in constants:
            raise TreeError(
                f"the engine takes {input_name} as an input, which its network does not have",
                where=str(tree.folder(name)),
                remedy="build the tree again",
            )
        yield input_name, resolve(constants[value].weight, source, network.literals)


def weights_of(tree: EngineTree, name: str) -> TensorSource:
    """Who has the numbers of a component's constants.

    Raises:
        TreeError, CheckpointError: they are not where the tree says, or are others.
    """
    weights = tree.component(name).weights
    if weights != "checkpoint":
        return CheckpointReader(CheckpointIndex.of_files(tree.folder(name), [tree.checked(name, weights)]))
    checkpoint = tree.manifest.checkpoint
    if checkpoint is None:
        raise TreeError("the tree does not say where its weights are", where=str(tree.root), remedy="build it again")
    try:
        index = CheckpointIndex.open(Path(checkpoint.folder))
    except CheckpointError as error:
        raise TreeError(
            f"the checkpoint that the tree was built from cannot be read: {error.cause}",
            where=checkpoint.folder,
            remedy="put it back there, or build the tree again",
        ) from error
    if index.identity != checkpoint.identity:
        raise TreeError(
            "the checkpoint has changed since the tree was built from it",
            where=checkpoint.folder,
            remedy="build the tree again",
        )
    return CheckpointReader(index)
