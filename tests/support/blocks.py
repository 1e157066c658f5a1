"""Chains of repeated blocks, and checks of the parts that their networks are divided into."""

from __future__ import annotations

from collections import Counter
from functools import partial

import torch
from torch import nn
from torch.testing import assert_close

from ditto.network.layers import Constant
from ditto.passes import SIMPLIFY, run_passes
from ditto.reference import Constants
from tests.support.lowering import ModuleTensors, lowered
from tests.support.parts import in_embedded_blocks, in_shared_blocks, run_in_parts

WIDTH = 4
X = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(1))


class Block(nn.Module):
    """What a transformer's block looks like from afar: a product, a vector of its own, a number, a residual."""

    def __init__(self, factor=2.0, width=WIDTH):
        super().__init__()
        self.linear = nn.Linear(width, width, bias=False)
        self.scale = nn.Parameter(torch.rand(width) + 0.5)
        self.factor = factor

    def forward(self, x):
        return x + torch.tanh(self.linear(x) * self.scale) * self.factor


class Chain(nn.Module):
    """Blocks between two layers of other widths."""

    def __init__(self, *blocks):
        super().__init__()
        self.first, self.last = nn.Linear(WIDTH, WIDTH + 1), nn.Linear(WIDTH + 1, 2)
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.last(x)


def blocks(*factors):
    """Blocks for a chain, one for each factor."""
    return [Block(factor, WIDTH + 1) for factor in factors]


def network_of(module, outputs=("result",), x=X):
    """The simplified network of a module."""
    return run_passes(lowered(module, {"x": x}, outputs=outputs), SIMPLIFY)


def runs(network, least_bytes=1):
    """Number of nodes that are not constants, and number of calls, of each part."""
    parts = in_shared_blocks(network, least_bytes)
    times = Counter(call.part for call in parts.schedule.calls)
    return [
        (sum(not isinstance(node.layer, Constant) for node in part.nodes), times[number])
        for number, part in enumerate(parts.networks)
    ]


def check_parts(module, outputs=("result",), least_bytes=1, x=X):
    """Compare the parts of a module's network with the module, and return the network."""
    network = network_of(module, outputs, x)
    with torch.no_grad():
        wanted = module(x)
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    for divide in (partial(in_shared_blocks, least_bytes=least_bytes), in_embedded_blocks):
        found = run_in_parts(network, {"x": x}, Constants(network, ModuleTensors(module)), divide)
        for name, tensor in zip(outputs, wanted, strict=True):
            assert_close(found[name], tensor, msg=lambda text, name=name: f"{name}: {text}")
    return network


class Towered(Chain):
    """A tower whose features are those of several of its blocks."""

    def __init__(self, chosen, *blocks):
        super().__init__(*blocks)
        self.chosen = chosen

    def forward(self, x):
        states = [self.first(x)]
        for block in self.blocks:
            states.append(block(states[-1]))
        return self.last(torch.cat([states[index] for index in self.chosen]))
