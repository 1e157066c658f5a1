"""Lowering keeps weights as references, folds what is constant, and names everything that it cannot lower."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ditto.errors import ModelError, UnsupportedOperator
from ditto.lowering import table
from ditto.network import check
from ditto.network.layers import Activation
from ditto.network.text import network_text
from ditto.network.weight import Folded, Literal, Stored, stored_names
from ditto.passes import SIMPLIFY, run_passes
from ditto.reference import Constants, run
from tests.support.layers import emitted
from tests.support.lowering import BATCH, ModuleTensors, check_meaning, lowered
from tests.support.programs import FunctionModule

aten = torch.ops.aten


def test_a_parameter_stays_a_reference():
    module = FunctionModule(lambda self, x: x @ self.w + self.v, {"w": torch.randn(4, 2), "v": torch.randn(2)})
    network = lowered(module, {"x": torch.randn(3, 4)})
    weights = [constant.weight for constant in network.constants()]
    v = Stored("v", (2,), torch.float32)
    assert weights == [Stored("w", (4, 2), torch.float32), Folded("reshape", (v, (1, 2)), (1, 2), torch.float32)]
    assert not network.literals.tensors


def test_joined_weights_are_folded_and_stay_joined_outermost():
    module = FunctionModule(lambda self, x: x * torch.cat((self.v, self.w)), {"v": torch.randn(2), "w": torch.randn(3)})
    network = lowered(module, {"x": torch.randn(2, 5)})
    (constant,) = network.constants()
    assert str(constant.weight) == "concatenate([reshape(v, [1, 2]), reshape(w, [1, 3])], 1)"
    assert stored_names(constant.weight) == {"v", "w"}
    check_meaning(network, module, {"x": torch.randn(2, 5)})


def _constants_only(self, x):
    angles = torch.cat((self.positions, self.positions)).unsqueeze(-1) * self.w.float()
    return x + (1.0 + angles.transpose(0, 1)[:, 1:3].neg() / 2).exp().sqrt().expand(2, -1, -1)


def test_what_follows_from_constants_alone_is_folded_into_one():
    parameters = {"w": torch.randn(3).half()}
    module = FunctionModule(_constants_only, parameters, {"positions": torch.arange(2)})
    inputs = {"x": torch.randn(2, 3, 2)}
    network = lowered(module, inputs)
    assert [type(node.layer).__name__ for node in network.nodes] == ["Constant", "ElementWise"]
    check_meaning(network, module, inputs)


def test_equal_constants_are_kept_once():
    network = lowered(lambda x: x + torch.ones_like(x) + torch.ones(2, 3), {"x": torch.zeros(2, 3)})
    assert len(network.literals.tensors) == 1
    assert isinstance(network.constants()[0].weight, Literal)


def test_what_no_output_needs_is_not_in_the_network():
    def unused(x):
        torch.relu(x)
        return torch.tanh(x)

    network = lowered(unused, {"x": torch.zeros(2)})
    assert [node.layer for node in network.nodes] == [Activation("TANH")]


@pytest.mark.parametrize(("function", "last"), [(lambda self, x: x, "Identity"), (lambda self, x: self.w, "Constant")])
def test_an_output_may_be_an_input_or_a_weight(function, last):
    module = FunctionModule(function, {"w": torch.randn(2)})
    network = lowered(module, {"x": torch.randn(2)})
    assert type(network.nodes[-1].layer).__name__ == last
    check(network)
    check_meaning(network, module, {"x": torch.randn(2)})
    emitted(network, ModuleTensors(module))


class _Block(nn.Module):
    def forward(self, x):
        return torch.cumsum(torch.relu(x), 1)


class _Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = _Block()
        self.weight = nn.Parameter(torch.randn(4))

    def forward(self, x):
        return torch.logcumsumexp(self.block(x) * torch.cumprod(self.weight, 0), 1)


def test_all_operators_without_lowering_are_named_with_the_first_ones_place():
    with pytest.raises(UnsupportedOperator) as raised:
        lowered(_Model(), {"x": torch.randn(2, 4)})
    line = _Block.forward.__code__.co_firstlineno + 1
    assert str(raised.value) == (
        "`aten.cumsum.default` has no lowering; also without one: aten.cumprod.default, aten.logcumsumexp.default\n"
        f"at: block (test_lower.py:{line})\n"
        "hint: register one with `@lowers(aten.cumsum.default)`"
        " (known: aten.mm.default, aten.cos.default, aten.bmm.default)"
    )


def test_a_lowering_with_another_shape_than_torchs_is_a_fault():
    wrong = {**table(), aten.tanh.default: lambda net, x: net.reshape(net.value(x), (6,))}
    with pytest.raises(ModelError, match=r"`aten.tanh.default` was lowered to float32\[6\], PyTorch gives") as raised:
        lowered(torch.tanh, {"x": torch.zeros(2, 3)}, lowerings=wrong)
    assert raised.value.remedy == "this is a fault of Ditto's lowering of that operator: please report it"


def test_sizes_are_computed_once_from_the_inputs():
    def grows(x, y):
        rows = x.shape[0] * y.shape[0] + 2
        return torch.ones(rows, 3).float() + torch.zeros(rows, 1)

    inputs = {"x": torch.randn(2, 3), "y": torch.randn(5, 3)}
    network = run_passes(lowered(grows, inputs, {"x": "batch", "y": "rows"}), SIMPLIFY)
    emitted(network)
    kinds = [type(node.layer).__name__ for node in network.nodes]
    assert kinds.count("Shape") == 2
    found = run(network, inputs, Constants(network, ModuleTensors(None)))["result"]
    assert torch.equal(found, grows(*inputs.values()))


class _Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.up = nn.Linear(4, 6)

    def forward(self, x):
        return torch.nn.functional.gelu(self.up(self.norm(x)))[:, -1]


def test_network_of_a_small_module(golden):
    network = run_passes(lowered(_Decoder(), {"x": torch.zeros(BATCH, 5, 4)}, {"x": "batch"}), SIMPLIFY)
    assert network_text(network) == golden(name="small_module")
