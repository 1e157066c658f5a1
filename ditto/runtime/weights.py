"""Weight values of a tree, from its checkpoint or from the tree itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from functools import lru_cache
from pathlib import Path

import torch
from attrs import frozen
from torch import Tensor

from ditto.checkpoint import CheckpointIndex, CheckpointReader
from ditto.engine import EngineTree
from ditto.errors import CheckpointError, TreeError
from ditto.network import Network, TensorSource, load, resolve
from ditto.network.layers import Constant
from ditto.network.spec import FLOATING
from ditto.network.weight import Literal, Weight, leaves
from ditto.runtime.staged_copier import StagedCopier


def network_of(tree: EngineTree, name: str) -> Network:
    """Network of a component; shared between callers, so do not modify it.

    Raises:
        TreeError: its files cannot be read.
    """
    if tree.manifest.target == "trtllm":
        import ditto.targets.trtllm.plugins  # noqa: F401 - its layers become known to network files
    files = [tree.checked(name, file) for file in ("network.json", "network.safetensors")]
    network = _loaded(*files, *(tree.manifest.files[tree.listed(name, file.name)].sha256 for file in files))
    _check_record(tree, name, network)
    return network


def _check_record(tree: EngineTree, name: str, network: Network) -> None:
    """Check that the manifest's entry of a component matches its network."""
    record = tree.component(name)
    inputs = {key: str(spec) for key, spec in network.inputs.items()}
    outputs = {key: str(network.value(value).spec) for key, value in network.outputs.items()}
    if (inputs, outputs, dict(network.shared)) != (record.inputs, record.outputs, record.shared):
        what = "inputs and outputs"
    elif record.spec.dtype not in _dtypes(network):
        what = "dtype"
    else:
        return
    raise TreeError(
        f"the manifest and network.json differ in the {what} of {name}",
        where=str(tree.directory(name)),
        remedy="build the tree again",
    )


def _dtypes(network: Network) -> set[str]:
    """Floating-point dtypes of a network's inputs or, if there are none, of its weights.

    A text model for TensorRT-LLM has integer inputs only, as it accesses its KV cache by address.
    """
    found = {spec.dtype for spec in network.inputs.values() if spec.dtype in FLOATING}
    if not found:
        weights = (constant.weight for constant in network.constants())
        found = {weight.dtype for weight in weights if not isinstance(weight, Literal)}
    return {str(dtype).removeprefix("torch.") for dtype in found}


@lru_cache(maxsize=8)
def _loaded(json_path: Path, literals_path: Path, *digests: str) -> Network:
    """Load a network from its files; the digests of their content are part of the cache key."""
    del digests
    return load(json_path, literals_path)


@frozen
class _OnDevice:
    """A tensor source on a device, so that weights are folded there."""

    source: TensorSource
    copied: Callable[[Tensor], Tensor]

    def tensor(self, name: str) -> Tensor:
        return self.copied(self.source.tensor(name))

    def release(self) -> None:
        self.source.release()


def bound_weights(
    tree: EngineTree, name: str, device: torch.device | None = None, held: MutableMapping[Weight, Tensor] | None = None
) -> Iterator[tuple[str, Tensor]]:
    """External weights of a component, one at a time: input name and values on `device` (default CPU).

    On the CPU, weights stored unchanged in the checkpoint are read-only views of the memory-mapped file; folded weights
    (joined q/k/v, another dtype) are computed here, and can be freed before the next.

    Args:
        held: values already resolved for another component of the same checkpoint; new ones are added.
    Raises:
        TreeError, CheckpointError: the network or the checkpoint cannot be read, or has changed.
    """
    wanted = external_weights(tree, name)
    if not wanted:
        return
    source, literals = weights_of(tree, name), network_of(tree, name).literals
    there = source if device is None else _OnDevice(source, _copier(device))
    for input_name, weight in wanted.items():
        if held is not None and weight in held:
            values = held[weight]
        elif any(isinstance(leaf, Literal) for leaf in leaves(weight)):  # literals are on the CPU
            values = resolve(weight, source, literals).to(device or "cpu")
        else:
            values = resolve(weight, there, literals)
        if held is not None:
            held[weight] = values
        yield input_name, values


def _copier(device: torch.device) -> Callable[[Tensor], Tensor]:
    return StagedCopier(device) if device.type == "cuda" else lambda tensor: tensor.to(device)


def external_weights(tree: EngineTree, name: str) -> dict[str, Weight]:
    """External weights of a component, by engine input name."""
    external = tree.component(name).external_weights
    network = network_of(tree, name) if external else Network()
    constants = {node.outputs[0]: node.layer for node in network.nodes if isinstance(node.layer, Constant)}
    for input_name, value in external.items():
        if value not in constants:
            raise TreeError(
                f"the engine accepts {input_name} as an input, which its network does not have",
                where=str(tree.directory(name)),
                remedy="build the tree again",
            )
    return {input_name: constants[value].weight for input_name, value in external.items()}


def tensor_beside(tree: EngineTree, name: str, file: str, tensor: str) -> Tensor:
    """A tensor of a safetensors file beside a component's engine.

    Raises:
        TreeError: the file has changed.
    """
    return CheckpointReader(CheckpointIndex.of_files(tree.directory(name), [tree.checked(name, file)])).tensor(tensor)


def weights_of(tree: EngineTree, name: str) -> TensorSource:
    """Source of a component's weight values.

    Raises:
        TreeError, CheckpointError: the weights are not where the tree says, or have changed.
    """
    weights = tree.component(name).weights
    if weights != "checkpoint":
        return CheckpointReader(CheckpointIndex.of_files(tree.directory(name), [tree.checked(name, weights)]))
    checkpoint = tree.manifest.checkpoint
    if checkpoint is None:
        raise TreeError("the tree does not say where its weights are", where=str(tree.root), remedy="build it again")
    try:
        index = CheckpointIndex.open(Path(checkpoint.directory))
    except CheckpointError as error:
        raise TreeError(
            f"the checkpoint that the tree was built from cannot be read: {error.cause}",
            where=checkpoint.directory,
            remedy="put it back there, or build the tree again",
        ) from error
    if index.identity != checkpoint.identity:
        raise TreeError(
            "the checkpoint has changed since the tree was built from it",
            where=checkpoint.directory,
            remedy="build the tree again",
        )
    return CheckpointReader(index)
