"""Reference session: runs the networks of a tree in PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from typing_extensions import override

from ditto.engine import EngineTree, Phase
from ditto.network import Network
from ditto.network.dims import evaluate
from ditto.ops.spans import SPAN_IDS
from ditto.reference import Constants, run
from ditto.runtime.padded import PaddedRunner
from ditto.runtime.profiles import component_for
from ditto.runtime.session import LlmRunner, Session
from ditto.runtime.weights import network_of, weights_of


class ReferenceSession(Session):
    """A session that runs each component's `network.json` in PyTorch.

    Weights come from the checkpoint that the tree was built from, or from the tree if it stores them.

    Args:
        tree: the tree to run.
        device: the device that PyTorch computes on.
    """

    name = "reference"

    def __init__(self, tree: EngineTree, device: torch.device | str = "cpu") -> None:
        super().__init__(tree)
        self.device = torch.device(device)
        self._networks: dict[str, tuple[Network, Constants]] = {}

    @override
    def encode(self, inputs: Mapping[str, Tensor]) -> Tensor:
        network, constants = self.network("vision")
        given = {name: inputs[name].to(self.device, spec.dtype) for name, spec in network.inputs.items()}
        return run(network, given, constants)[next(iter(network.outputs))]

    @override
    def start(self, batch: int) -> LlmRunner:
        return _ReferenceRunner(self, batch)

    def network(self, name: str) -> tuple[Network, Constants]:
        """Network and constants of a component, loaded once.

        Raises:
            TreeError, CheckpointError: the network or its checkpoint cannot be read.
        """
        if name not in self._networks:
            network = network_of(self.tree, name)
            self._networks[name] = (network, Constants(network, weights_of(self.tree, name), self.device))
        return self._networks[name]


class _ReferenceRunner(PaddedRunner):
    def __init__(self, session: ReferenceSession, batch: int) -> None:
        self.device = session.device
        super().__init__(session, batch)
        self._llm = session.network("llm")
        prefill, decode = (component_for(session.tree, phase) for phase in (Phase.PREFILL, Phase.DECODE))
        self._decode = session.network(decode) if decode != prefill else None
        self._caches = {
            name: torch.zeros(
                [evaluate(dim, {"batch": batch}) for dim in spec.shape], dtype=spec.dtype, device=self.device
            )
            for name, spec in self._llm[0].inputs.items()
            if name in self._llm[0].shared.values()
        }

    @override
    def run(self, rows: slice, given: Mapping[str, Tensor]) -> Tensor:
        return self._run(self._llm, rows, given)

    @override
    def run_next(self, sampled: Tensor, cached: Sequence[int], moving: Sequence[bool]) -> Tensor:
        first, last = moving.index(True), self._batch - 1 - moving[::-1].index(True)
        rows = slice(first, last + 1)  # the others need no filler token here
        logits = self._run_rows(rows, sampled, cached)
        if len(logits) == self._batch:
            return logits
        everything = logits.new_zeros(self._batch, logits.shape[1])
        everything[rows] = logits
        return everything

    def _run_rows(self, rows: slice, sampled: Tensor, cached: Sequence[int]) -> Tensor:
        """Logits of neighbouring rows after one more token of each."""
        written = torch.tensor(cached[rows], dtype=torch.int32)
        ids = sampled[rows].to(torch.int32)[:, None]
        positions = self._next_positions(cached)[..., rows, :]
        given = {
            "input_ids": ids,
            "position_ids": positions,
            "last_token_ids": torch.zeros_like(written),
            "write_indices": written,
            "cache_slots": torch.arange(max(cached[rows]) + 1, dtype=torch.int32),
            "prompt_embedding_table": self._no_images,
            SPAN_IDS: torch.zeros_like(ids),  # new tokens are text
        }
        return self._run(self._decode or self._llm, rows, given)

    def _run(self, described: tuple[Network, Constants], rows: slice, given: Mapping[str, Tensor]) -> Tensor:
        network, constants = described
        inputs = {name: given[name].to(self.device) for name in network.inputs if name in given}
        caches = {name: cache[rows] for name, cache in self._caches.items()}
        outputs = run(network, {**inputs, **caches}, constants, caches)
        for present, past in network.shared.items():
            if outputs[present] is not caches[past]:
                self._caches[past][rows] = outputs[present]
        return outputs["logits"]
