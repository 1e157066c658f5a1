"""The printed form of a network, for people and for golden files."""

from __future__ import annotations

import pytest
import torch

from ditto.network import network_text
from ditto.network.dims import multiply
from ditto.network.layers import Attention, Cast, Gather, MatrixMultiply, Reduce, Shuffle
from ditto.network.text import layer_text
from tests.support.networks import BATCH, every_layer_network


def test_a_network_of_every_kind_of_layer(golden):
    network, _, _ = every_layer_network()
    assert network_text(network) == golden(name="whole")


def test_the_text_is_the_same_for_networks_made_alike():
    assert network_text(every_layer_network()[0]) == network_text(every_layer_network()[0])


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (Attention(), "Attention"),
        (Attention(causal=True), "Attention(causal=True)"),
        (Gather(0), "Gather(axis=0)"),
        (Gather(1, batch_axes=1), "Gather(axis=1, batch_axes=1)"),
        (MatrixMultiply(transpose_y=True), "MatrixMultiply(transpose_y=True)"),
        (Cast(torch.bfloat16), "Cast(dtype=bfloat16)"),
        (Reduce("SUM", (0, 2), True), "Reduce(op=SUM, axes=(0, 2), keep=True)"),
        (Shuffle(sizes=(multiply(2, BATCH), 3), second=(1, 0)), "Shuffle(second=(1, 0), sizes=(2*batch, 3))"),
    ],
)
def test_fields_at_their_defaults_are_left_out(layer, text):
    assert layer_text(layer) == text
