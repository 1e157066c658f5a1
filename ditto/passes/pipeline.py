"""Run passes in order and log their results."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from loguru import logger

from ditto.dumps import dump
from ditto.network.graph import Network
from ditto.network.text import network_text
from ditto.passes.cse import CommonSubexpressions
from ditto.passes.dead_layers import DeadLayers
from ditto.passes.fold_shuffles import FoldShuffles
from ditto.passes.network_pass import NetworkPass
from ditto.refusals import refusal_lines

SIMPLIFY: tuple[NetworkPass, ...] = (FoldShuffles(), CommonSubexpressions(), DeadLayers())
"""Passes that run after lowering, and after passes whose result may need simplification."""


def run_passes(network: Network, passes: Iterable[NetworkPass]) -> Network:
    """Run passes in order.

    Logs how often each pass applied and why it did not apply elsewhere, and dumps each network that a pass changed.
    """
    for each in passes:
        result = each.run(network)
        logger.debug("pass {} applied {} times to {}", each.name, result.applied, network.name)
        for line in refusal_lines(result.refused):
            logger.debug("pass {} {}", each.name, line)
        network = result.network
        if result.applied:
            dump(f"{each.name} of {network.name}", partial(network_text, network))
    return network
