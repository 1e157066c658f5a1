"""Cost of a quantisation: what the dequantised model loses to the float model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from attrs import frozen

from ditto.engine import EngineTree
from ditto.network.quantized import QuantizedWeight, rounded_tensors
from ditto.reference import relative_error
from ditto.runtime.weights import network_of
from ditto.verify.reference_outputs import ReferenceOutputs


@frozen
class QuantizationCost:
    """Differences of the model with quantised weights from the float model, both in float32.

    Args:
        relative_error: of the logits, over all positions, in the Frobenius norm.
        divergence: mean Kullback-Leibler divergence of the distributions of the next token, in nats.
        tokens: number of positions.
        changed: positions at which another token is the most likely one.
    """

    relative_error: float
    divergence: float
    tokens: int
    changed: int

    def text(self) -> str:
        """One line for the terminal."""
        return (
            f"quantised weights change {self.changed} of {self.tokens} tokens of the float model: logits "
            f"{self.relative_error:.2e} off, KL divergence {self.divergence:.2e} nats"
        )


def rounded_weights(tree: EngineTree) -> dict[str, QuantizedWeight]:
    """The float tensors of the checkpoint that the build of a tree has quantised, by name."""
    networks = [network_of(tree, name) for name in tree.manifest.components]
    return rounded_tensors(constant.weight for network in networks for constant in network.constants())


def quantization_cost(exact: Sequence[ReferenceOutputs], quantized: Iterable[ReferenceOutputs]) -> QuantizationCost:
    """Compare the outputs of the float model with those of the quantised one, for the same tokens."""
    wanted, found = (torch.cat([item.logits for item in side]).double() for side in (exact, quantized))
    ours, theirs = found.log_softmax(-1), wanted.log_softmax(-1)
    return QuantizationCost(
        relative_error=relative_error(found, wanted),
        divergence=float((theirs.exp() * (theirs - ours)).sum(-1).mean()),
        tokens=len(wanted),
        changed=int((wanted.argmax(-1) != found.argmax(-1)).sum()),
    )
