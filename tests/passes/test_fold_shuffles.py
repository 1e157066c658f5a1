"""Shuffles of shuffles become one where one layer can express both."""

from __future__ import annotations

import itertools

import pytest
import torch

from ditto.errors import ShapeError
from ditto.network import Network, Spec
from ditto.network.layers import Shuffle
from ditto.passes import run_passes
from ditto.passes.dead_layers import DeadLayers
from ditto.passes.fold_shuffles import FoldShuffles
from ditto.reference import Constants, run
from tests.support.layers import NoTensors
from tests.support.passes import check_pass

TRANSPOSES = [
    Shuffle(first=(1, 2, 0)),
    Shuffle(second=(0, 2, 1)),
    Shuffle(first=(2, 1, 0), second=(1, 0, 2)),
    Shuffle(),
]
RESHAPES = [Shuffle(reshape=(4, -1, 0)), Shuffle((2, 0, 1), (0, 3, 2)), Shuffle((1, 0, 2), (3, 4, 2), (2, 1, 0))]


@pytest.mark.parametrize("length", [2, 3, 4])
def test_folded_shuffles_move_elements_as_one_after_another(length):
    x = torch.arange(24.0).reshape(4, 3, 2)
    for chain in itertools.product([*TRANSPOSES, *RESHAPES], repeat=length):
        network = Network("net")
        value, wanted = network.input("x", Spec.of(x)), x
        try:
            for layer in chain:
                wanted = layer.reference(wanted)
                value = network.add(layer, value)
        except (ShapeError, RuntimeError):
            continue  # a copied or inferred size that this chain does not have
        network.output("y", value)
        after = run_passes(network, (FoldShuffles(), DeadLayers()))
        assert torch.equal(run(after, {"x": x}, Constants(after, NoTensors()))["y"], wanted), chain
        reshapes = sum(layer.reshape is not None for layer in chain)
        assert len(after.nodes) <= max(1, reshapes), chain


def test_transposes_around_one_reshape_are_one_shuffle_and_the_others_keep_their_readers():
    result = check_pass(
        FoldShuffles(),
        """
        input %x: float32[2, 3, 4]
        %a.0: float32[3, 2, 4] = Shuffle(first=(1, 0, 2)) %x
        %a.1: float32[3, 4, 2] = Shuffle(first=(0, 2, 1)) %a.0
        %a.2: float32[2, 6, 2] = Shuffle(reshape=(2, 6, 2)) %a.1
        %a.3: float32[2, 2, 6] = Shuffle(first=(2, 0, 1)) %a.2
        output y = %a.3
        output z = %a.1
        """,
        """
        input %x: float32[2, 3, 4]
        %a.0: float32[3, 2, 4] = Shuffle(first=(1, 0, 2)) %x
        %a.4: float32[3, 4, 2] = Shuffle(first=(1, 2, 0)) %x
        %a.5: float32[2, 6, 2] = Shuffle(first=(1, 2, 0), reshape=(2, 6, 2)) %x
        %a.6: float32[2, 2, 6] = Shuffle(first=(1, 2, 0), reshape=(2, 6, 2), second=(2, 0, 1)) %x
        output y = %a.6
        output z = %a.4
        """,
    )
    assert result.applied == 3


def test_shuffles_whose_sizes_are_an_input_stay_apart():
    text = """
        input %x: float32[batch, 3]
        %a.0: int64[2] = Shape %x
        %a.1: float32[3, batch] = Shuffle(first=(1, 0)) %x
        %a.2: float32[batch, 3] = Shuffle(sizes=(batch, 3)) %a.1 %a.0
        %a.3: float32[3, batch] = Shuffle(first=(1, 0)) %a.2
        output y = %a.3
    """
    assert check_pass(FoldShuffles(), text, text).applied == 0
