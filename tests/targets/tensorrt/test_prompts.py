"""Linear layers of prompts in blocks, and the other way round, compute the same, of the same weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ditto.lowering import table
from ditto.network.layers import MatrixMultiply
from ditto.targets.tensorrt import products, prompts
from ditto.targets.tensorrt.prompts import PromptProducts
from tests.lowering.test_lower import check_meaning, lowered
from tests.targets.tensorrt.test_products import check
from tests.test_program import FLOATS

ROWS, WIDTH = 5, 4


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Sizes at which tiny layers are large."""
    monkeypatch.setattr(prompts, "BLOCK", 2)
    monkeypatch.setattr(prompts, "ALIGNED", 1)
    monkeypatch.setattr(products, "ALIGNED", 1)


class Mlp(nn.Module):
    """Two layers, and a function of elements between."""

    def __init__(self, function, bias):
        super().__init__()
        self.function = function
        self.up, self.down = nn.Linear(WIDTH, 8, bias=bias), nn.Linear(8, WIDTH, bias=bias)

    def forward(self, x):
        return x + self.down(self.function(self.up(x)))


class Gated(nn.Module):
    """As in Llama, gate and up in one."""

    def __init__(self, bias, gate=6, up=6):
        super().__init__()
        self.sizes = gate, up
        self.both, self.down = nn.Linear(WIDTH, gate + up, bias=bias), nn.Linear(up, WIDTH, bias=bias)

    def forward(self, x):
        gate, up = self.both(x).split(self.sizes, dim=-1)
        return x + self.down(nn.functional.silu(gate) * up)


def matrices(network):
    """For each product, in order, on which side the weights are, and the shapes of both sides."""
    found = []
    for node in network.nodes:
        if isinstance(node.layer, MatrixMultiply):
            shapes = [[str(dim) for dim in network.value(name).spec.shape] for name in node.inputs]
            turned = not any("batch" in dim for dim in shapes[0])
            found.append(("left" if turned else "right", *shapes))
    return found


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("bias", [True, False])
def test_many_columns_are_multiplied_in_blocks(dtype, bias):
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(WIDTH, 6, bias=bias)

        def forward(self, x):
            return self.linear(x).softmax(-1)

    network = check(Normed(), ROWS, PromptProducts().linear, dtype)
    assert matrices(network) == [("right", ["1", "5*batch", "4"], ["3", "2", "4"])]


def test_a_product_that_makes_rows_shorter_has_its_matrix_on_the_left():
    network = check(nn.Linear(WIDTH, 4), ROWS, PromptProducts().linear)
    assert matrices(network) == [("left", ["2", "2", "4"], ["1", "5*batch", "4"])]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "function", [nn.functional.silu, nn.functional.gelu, torch.relu, lambda x: torch.relu(x).square(), lambda x: 2 * x]
)
def test_what_stands_between_products_stays_the_other_way_round(function, bias):
    network = check(Mlp(function, bias), ROWS, PromptProducts().linear)
    up, down = matrices(network)
    assert up == ("left", ["4", "2", "4"], ["1", "5*batch", "4"])
    assert down == ("left", ["2", "2", "8"], ["1", "8", "5*batch"])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("bias", [True, False])
def test_a_gate_is_computed_the_other_way_round(dtype, bias):
    network = check(Gated(bias), ROWS, PromptProducts().linear, dtype)
    assert matrices(network)[1] == ("left", ["2", "2", "6"], ["1", "6", "5*batch"])


def test_columns_that_are_read_elsewhere_too_come_out_right():
    class Both(Gated):
        def forward(self, x):
            both = self.both(x)
            return self.down(torch.relu(both[..., 2:8])) + both.softmax(-1)[..., :WIDTH]

    x = torch.randn(3, ROWS, WIDTH, generator=torch.Generator().manual_seed(1))
    lowerings = {**table(), torch.ops.aten.linear.default: PromptProducts().linear}
    module = Both(bias=True)
    network = lowered(module, {"x": x}, {"x": "batch"}, lowerings)
    check_meaning(network, module, {"x": x}, {"batch": 3})
    assert [side for side, *_ in matrices(network)] == ["right", "left"]


def test_what_mixes_columns_is_computed_in_rows():
    class Normed(Mlp):
        def forward(self, x):
            return self.down(nn.functional.layer_norm(self.up(x), (8,)))

    network = check(Normed(None, bias=True), ROWS, PromptProducts().linear)
    assert matrices(network)[1][2] == ["1", "5*batch", "8"]


def test_the_last_tokens_are_few_rows(monkeypatch):
    monkeypatch.setattr(products, "_SHORTEST_PART", 1)
    network = check(nn.Linear(WIDTH, 8), 1, PromptProducts().linear)
    assert matrices(network)[0][1] == ["4", "batch", "1"]


def test_a_weight_that_is_computed_is_taken_as_it_is():
    class Computed(nn.Module):
        def forward(self, x):
            return nn.functional.linear(x, x[0, :1].expand(9, WIDTH))

    lowerings = {**table(), torch.ops.aten.linear.default: PromptProducts().linear}
    x = torch.randn(3, ROWS, WIDTH)
    check_meaning(lowered(Computed(), {"x": x}, None, lowerings), Computed(), {"x": x})


@pytest.mark.parametrize(("columns", "wanted"), [(22016, 8), (12288, 6), (4095, 1), (4096, 2), (3, 1), (15360, 6)])
def test_blocks_are_large_and_equal(monkeypatch, columns, wanted):
    monkeypatch.undo()
    assert prompts.blocks_of(columns, prompts.BLOCK) == wanted
