"""Linear layers in other forms compute the same, of the same weights, and keep what follows out of the product."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ditto.lowering import table
from ditto.network.layers import Concatenation, ElementWise, MatrixMultiply, Reduce
from ditto.network.weight import stored_names
from ditto.targets.tensorrt import products
from ditto.targets.tensorrt.products import linear_in_halves, linear_of_few_rows
from tests.lowering.test_lower import Tensors, check_meaning, lowered
from tests.support.layers import emitted
from tests.test_program import FLOATS

BATCH = 3


class _Sliced(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 6)

    def forward(self, x):
        made = self.linear(x)
        return made[..., :2] * made[..., 2:4]


def check(module, rows, form, dtype=torch.float32):
    """The network of a module whose linear layers take a form; batch dynamic."""
    module = module.to(dtype)
    lowerings = {**table(), torch.ops.aten.linear.default: form}
    x = torch.randn(BATCH, rows, 4, generator=torch.Generator().manual_seed(1)).to(dtype)
    network = lowered(module, {"x": x}, {"x": "batch"}, lowerings)
    emitted(network, Tensors(module))
    for count in (1, BATCH):
        check_meaning(network, module, {"x": x[:count]}, {"batch": count})
    names = {name for constant in network.constants() for name in stored_names(constant.weight)}
    assert names == set(dict(module.named_parameters()))
    return network


def numbers(network, kind):
    """The layers of some kind that give numbers, not shapes."""
    nodes = (node for node in network.nodes if isinstance(node.layer, kind))
    return [node for node in nodes if network.value(node.outputs[0]).spec.dtype.is_floating_point]


def feeding(network, kind):
    """The layers that these read from."""
    makers = [network.producer(network.value(name)) for node in numbers(network, kind) for name in node.inputs]
    return [type(maker.layer) for maker in makers if maker is not None]


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_bias_is_added_to_halves(dtype):
    network = check(nn.Linear(4, 6), 5, linear_in_halves, dtype)
    assert feeding(network, Concatenation) == [ElementWise, ElementWise]
    assert MatrixMultiply not in feeding(network, ElementWise)


@pytest.mark.parametrize("module", [nn.Linear(4, 6, bias=False), nn.Linear(4, 7), nn.Linear(4, 4), _Sliced()], ids=repr)
def test_without_a_bias_or_halves_or_need_a_linear_layer_stays_whole(module):
    network = check(module, 5, linear_in_halves)
    assert not numbers(network, Concatenation)


@pytest.fixture
def small(monkeypatch):
    """Sizes at which tiny layers are large."""
    monkeypatch.setattr(products, "_SHORTEST_PART", 1)
    monkeypatch.setattr(products, "ALIGNED", 1)


def factors(network):
    """The shapes of what the only product multiplies."""
    (product,) = (node for node in network.nodes if isinstance(node.layer, MatrixMultiply))
    return [[str(dim) for dim in network.value(name).spec.shape] for name in product.inputs]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("columns", "parts"), [(6, 4), (9, 2)])
def test_one_row_is_multiplied_in_parts(monkeypatch, dtype, bias, columns, parts):
    monkeypatch.setattr(products, "_MANY_COLUMNS", 9)
    network = check(nn.Linear(4, columns, bias=bias), 1, linear_of_few_rows, dtype)
    width = str(4 // parts)
    assert factors(network) == [[str(parts), "batch", width], [str(parts), str(columns), width]]


@pytest.mark.usefixtures("small")
def test_several_rows_of_each_are_multiplied_whole():
    network = check(nn.Linear(4, 6), 2, linear_of_few_rows)
    assert factors(network)[0] == ["batch", "2", "4"]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("dtype", FLOATS)
def test_parts_are_added_in_float32(dtype):
    network = check(nn.Linear(4, 6), 1, linear_of_few_rows, dtype)
    ((added,),) = (node.inputs for node in numbers(network, Reduce))
    assert network.value(added).spec.dtype == torch.float32


@pytest.mark.parametrize(
    ("columns", "inner", "wanted"),
    [
        (4096, 11008, 4),
        (4096, 4096, 4),
        (22016, 4096, 2),
        (8192, 4096, 2),
        (8191, 4096, 4),
        (4096, 2048, 4),
        (4096, 1024, 2),
        (32064, 1024, 2),
        (4096, 1008, 1),
        (2048, 4112, 2),
        (2048, 4104, 1),
    ],
)
def test_parts_are_long_and_aligned_and_the_more_the_fewer_columns(columns, inner, wanted):
    assert products.parts_of(columns, inner) == wanted


@pytest.mark.parametrize("form", [linear_of_few_rows, linear_in_halves])
def test_a_weight_that_is_computed_is_taken_as_it_is(form):
    class Computed(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.randn(10))

        def forward(self, x):
            return nn.functional.linear(x, x[0, :1].expand(10, 4), self.bias)

    lowerings, module = {**table(), torch.ops.aten.linear.default: form}, Computed()
    x = torch.randn(BATCH, 1, 4)
    check_meaning(lowered(module, {"x": x}, None, lowerings), module, {"x": x})
