"""Constants are their weights, in the network and in TensorRT."""

from __future__ import annotations

import pytest
import torch

from ditto.network import Network, Spec
from ditto.network.layers import Constant, Identity
from ditto.network.weight import Stored, fold
from ditto.reference import Constants, run
from tests.support.layers import FLOATS, check_layer, emitted
from tests.support.networks import InMemoryTensors


def constant(network, form, tensor):
    """A weight of each form that stands for `tensor`, stored as `w`."""
    stored = Stored("w", tuple(tensor.shape), tensor.dtype)
    forms = {
        "stored": lambda: stored,
        "literal": lambda: network.literals.keep(tensor),
        "folded": lambda: fold("permute", fold("permute", stored, (1, 0)), (1, 0)),
        "joined": lambda: fold(
            "concatenate", (fold("slice", stored, 0, 0, 1, 1), fold("slice", stored, 0, 1, 2, 1)), 0
        ),
    }
    return forms[form]()


@pytest.mark.parametrize("dtype", [*FLOATS, torch.int64, torch.int32, torch.bool])
@pytest.mark.parametrize("form", ["stored", "literal", "folded", "joined"])
def test_a_constant_is_its_weight(form, dtype):
    tensor = (torch.randn(2, 3) * 2).to(dtype)
    network, source = Network("test"), InMemoryTensors(w=tensor)
    made = network.add(Constant(constant(network, form, tensor)))
    network.output("result", made)
    assert made.spec == Spec.of(tensor)
    assert torch.equal(run(network, {}, Constants(network, source))["result"], tensor)
    emitted(network, source)


def test_a_constant_is_resolved_once():
    tensor, network = torch.randn(2, 3), Network("test")
    source = InMemoryTensors(w=tensor)
    network.output("result", network.add(Constant(constant(network, "folded", tensor))))
    constants = Constants(network, source)
    for _ in range(3):
        run(network, {}, constants)
    assert source.asked == ["w"]


@pytest.mark.parametrize("dtype", [*FLOATS, torch.int64, torch.int32, torch.bool])
def test_identity_changes_nothing(dtype):
    x = (torch.randn(2, 3) * 2).to(dtype)
    check_layer(Identity(), [x], x.clone(), dynamic={0: "batch", 1: "sequence"})
