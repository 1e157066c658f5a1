"""Simulation on the CPU of TensorRT-LLM's runtime for a language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ditto.engine import Profile
from ditto.errors import ShapeError
from ditto.network import Network
from ditto.reference import Constants, run
from ditto.targets.trtllm.blocks import BlockPools, CacheLayout
from ditto.targets.trtllm.step import Part, StepMaker


class PackedRuntime:
    """Runs packed steps of several sequences and keeps their KV cache.

    Args:
        network, constants: the language model and its weights.
        config: content of its llm/config.json.
        profile: the ranges of the network's named dimensions.
        sequences: maximum number of sequences held at once.
    Raises:
        ShapeError: the network's attentions cannot share a KV cache.
    """

    def __init__(
        self,
        network: Network,
        constants: Constants,
        config: dict[str, Any],
        profile: Profile,
        sequences: int,
    ) -> None:
        self.network, self._constants, self._profile = network, constants, profile
        layout = CacheLayout.of(network)
        self.maker = StepMaker.of(config, len(layout.kv_heads))
        self.pools = BlockPools(layout, sequences, self.maker.max_seq_len)

    def step(self, parts: Sequence[Part]) -> Tensor:
        """Logits after each part's last token, float32 [parts, vocabulary].

        Args:
            parts: parts of different sequences, in any order.
        Raises:
            ShapeError: the parts exceed the engine's limits.
        """
        order = sorted(range(len(parts)), key=lambda index: not parts[index].is_context)
        for part in parts:
            self.pools.hold(part.sequence, part.past + len(part.ids))
        inputs = self.maker.inputs([parts[index] for index in order], self.pools)
        logits = run(self.network, bound(self.network, inputs, self._profile), self._constants)["logits"]
        return logits[torch.tensor(order).argsort()]

    def release(self, sequence: int) -> None:
        """Remove a sequence; its number may be used again."""
        self.pools.release(sequence)


def bound(network: Network, inputs: Mapping[str, Tensor], profile: Profile) -> dict[str, Tensor]:
    """Inputs of a network, selected from those that the runtime binds.

    Source: contract, LLM 2.4.

    Args:
        profile: the ranges of the network's named dimensions.
    Raises:
        ShapeError: an input of the network is unknown to the runtime, or outside the profile.
    """
    unknown = [name for name in network.inputs if name not in inputs]
    if unknown:
        raise ShapeError(f"the runtime has nothing for the network's {', '.join(unknown)}")
    for name, spec in network.inputs.items():
        for dim, size in zip(spec.shape, inputs[name].shape, strict=True):
            accepted = profile.ranges.get(str(dim))
            if accepted is not None and not accepted.min <= size <= accepted.max:
                raise ShapeError(f"{name} has {dim} = {size}, the profile goes from {accepted.min} to {accepted.max}")
    return {name: inputs[name] for name in network.inputs}
