"""Networks of one attention, beside the operator."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.testing import assert_close

from ditto.lowering import Lowering
from ditto.network import Network, Spec, symbol
from ditto.reference import TOLERANCE, Constants, run
from tests.support.layers import NoTensors, emitted

FLOATS = [torch.float32, torch.float16, torch.bfloat16]
BATCH, HEADS, LENGTH, WIDTH = 2, 4, 5, 8


def operands(groups: int, dtype: torch.dtype, width: int = WIDTH) -> dict[str, Tensor]:
    """q, k, v and a mask that lets every token see itself; `groups` KV heads."""
    generator = torch.Generator().manual_seed(groups)
    shapes = [(BATCH, heads, LENGTH, width) for heads in (HEADS, groups, groups)]
    tensors = {n: torch.randn(s, generator=generator).to(dtype) for n, s in zip(("q", "k", "v"), shapes)}
    tensors["mask"] = torch.rand(BATCH, 1, LENGTH, LENGTH, generator=generator) > 0.5
    tensors["mask"] |= torch.eye(LENGTH, dtype=torch.bool)
    return tensors


def attention_network(lowering: Any, tensors: dict[str, Tensor], dynamic: bool, *decoder_config: Any) -> Network:
    """A network of one attention; its batch and sequence may be dynamic."""
    net = Lowering(Network("test"), None, None)

    def spec(name: str, x: Tensor) -> Spec:
        if not dynamic:
            return Spec.of(x)
        batch, sequence = symbol("batch"), symbol("sequence")
        return Spec((batch, x.shape[1], sequence, sequence if name == "mask" else x.shape[3]), x.dtype)

    values = {name: net.input(name, spec(name, x)) for name, x in tensors.items()}
    net.network.output(
        "result", lowering(net, values["q"], values["k"], values["v"], *decoder_config, values.get("mask"))
    )
    return net.network


def result_of(network: Network, tensors: dict[str, Tensor]) -> Tensor:
    """The network's result in the reference."""
    return run(network, tensors, Constants(network, NoTensors()))["result"]


def check(network: Network, tensors: dict[str, Tensor], wanted: Tensor) -> None:
    """TensorRT takes the network, and its result is what is wanted."""
    emitted(network)
    assert_close(result_of(network, tensors), wanted, **TOLERANCE[wanted.dtype])


def check_that_unseen_keys_count_for_nothing(lowering: Any, *decoder_config: Any) -> None:
    """Whatever the keys and values hold that no query sees."""
    tensors = operands(2, torch.float32)
    tensors["mask"] = torch.ones(BATCH, 1, LENGTH, LENGTH, dtype=torch.bool).tril()
    changed = {**tensors, "k": tensors["k"].clone(), "v": tensors["v"].clone()}
    changed["k"][:, :, -1], changed["v"][:, :, -1] = 1e4, -1e4
    network = attention_network(lowering, tensors, False, *decoder_config)
    first, second = (result_of(network, given) for given in (tensors, changed))
    assert torch.equal(first[:, :, :-1], second[:, :, :-1])
    assert not torch.equal(first[:, :, -1], second[:, :, -1])
