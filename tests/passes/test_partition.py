"""Parts of a network, run by their calls, compute what PyTorch computes, whatever repeats or does not."""

from __future__ import annotations

from collections import Counter
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from ditto.network import check
from ditto.network.layers import Constant, Convolution, MatrixMultiply, Normalization, Shape
from ditto.network.weight import stored_names
from ditto.reference import Constants
from tests.support.blocks import WIDTH, Block, Chain, Towered, X, blocks, check_parts, network_of, runs
from tests.support.lowering import ModuleTensors
from tests.support.networks import every_layer_network
from tests.support.parts import (
    DIVISIONS,
    as_a_whole,
    in_embedded_blocks,
    in_shared_blocks,
    run_in_parts,
    weights_by_value,
)


def test_a_block_is_one_part_and_called_for_each():
    network = check_parts(Chain(*blocks(2.0, 2.0, 2.0, 2.0, 2.0)))
    assert runs(network) == [(2, 1), (5, 5), (2, 1)]


def test_what_repeats_nothing_is_one_part():
    network = check_parts(Chain(*blocks(2.0)))
    assert runs(network) == [(9, 1)]


class Formed(nn.Module):
    """A block of one form or the other, whose weights are alike."""

    def __init__(self, form):
        super().__init__()
        self.linear, self.form = nn.Linear(WIDTH + 1, WIDTH + 1, bias=False), form

    def forward(self, x):
        return self.form(x + torch.exp(-(self.linear(x) ** 2)))


@pytest.mark.parametrize(
    ("forms", "times"),
    [
        ([torch.tanh] * 3, 3),
        ([torch.tanh, torch.sigmoid, torch.tanh, torch.sigmoid], 2),
        ([torch.tanh, torch.sigmoid, torch.relu], None),
        ([torch.tanh] * 2 + [torch.sigmoid] * 4, 4),
        ([torch.tanh] * 4 + [torch.sigmoid] * 2, 4),
    ],
)
def test_blocks_of_another_form_are_no_likes(forms, times):
    made = runs(check_parts(Chain(*map(Formed, forms))))
    assert [called for _, called in made] == ([1, times, 1] if times else [1])


class Likes(nn.Module):
    """Much that is no like of anything, and in it, two times, a few of a kind."""

    def __init__(self, widths):
        super().__init__()
        self.widths = nn.ModuleList(nn.Linear(*pair, bias=False) for pair in pairwise([WIDTH, *widths, WIDTH]))

    def forward(self, x):
        for linear in self.widths:
            x = torch.tanh(linear(x))
        return torch.exp(torch.sigmoid(torch.exp(torch.sigmoid(x))))


@pytest.mark.parametrize(("widths", "parts"), [(range(5, 9), 1), (range(5, 25), 1), ([], 2)])
def test_a_few_likes_are_not_worth_a_cut(widths, parts):
    assert len(runs(check_parts(Likes(widths)))) == parts


def test_there_may_be_nothing_before_or_after_the_blocks():
    network = check_parts(nn.Sequential(*(Block() for _ in range(3))))
    assert runs(network) == [(5, 3)]


class Normed(Block):
    """A block as transformers have them: its norm comes first, and the last block's sum has none behind it."""

    def forward(self, x):
        return x + self.linear(nn.functional.layer_norm(x, x.shape[-1:], self.scale))


@pytest.mark.parametrize("divide", [partial(in_shared_blocks, least_bytes=1), in_embedded_blocks])
def test_a_cut_is_before_a_product_so_that_a_sum_and_the_norm_behind_it_are_in_one_part(divide):
    network = network_of(Chain(*(Normed(width=WIDTH + 1) for _ in range(4))))
    parts = divide(network)
    assert len(parts.schedule.calls) == 1 + 3 + 1
    for part in (parts.networks[call.part] for call in parts.schedule.calls[1:-1]):
        kinds = [type(node.layer) for node in part.nodes if not isinstance(node.layer, Constant)]
        assert kinds[0] == MatrixMultiply and kinds[-1] == Normalization


def test_each_call_takes_its_own_blocks_weights_and_hands_on_one_value():
    parts = in_shared_blocks(network_of(Chain(*blocks(2.0, 2.0, 2.0))), 1)
    handed = None
    for number, call in enumerate(parts.schedule.calls[1:-1]):
        taken = {call.tensors[name] for name in parts.networks[1].inputs}
        own = {f"blocks.{number}.linear.weight", f"blocks.{number}.scale"}
        assert taken & set(parts.external) == own
        assert handed is None or handed in taken
        (handed,) = (call.tensors[name] for name in parts.networks[1].outputs)
        assert handed in parts.schedule.between
    assert handed in parts.schedule.calls[-1].tensors.values()


def test_the_network_is_left_as_it_is():
    network = network_of(Chain(*blocks(2.0, 2.0, 2.0)))
    nodes, inputs, outputs = list(network.nodes), dict(network.inputs), dict(network.outputs)
    in_shared_blocks(network, 1)
    assert (network.nodes, network.inputs, network.outputs) == (nodes, inputs, outputs)


def test_weights_that_differ_between_blocks_are_outside_even_if_they_are_small():
    network = check_parts(Chain(*blocks(2.0, 2.0)), least_bytes=1 << 20)
    wanted = {f"blocks.{number}.{name}" for number in (0, 1) for name in ("linear.weight", "scale")}
    assert set(in_shared_blocks(network, 1 << 20).external) == wanted


class Shared(Chain):
    """Blocks that multiply by one vector and one matrix that all have."""

    def __init__(self, *blocks):
        super().__init__(*blocks)
        self.vector = nn.Parameter(torch.rand(WIDTH + 1))
        self.matrix = nn.Linear(WIDTH + 1, WIDTH + 1, bias=False)

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = block(self.matrix(x) * self.vector)
        return self.last(x)


def test_weights_that_blocks_have_in_common_are_inside_if_they_are_small():
    large = (WIDTH + 1) ** 2 * 4
    network = check_parts(Shared(*blocks(2.0, 2.0, 2.0)), least_bytes=large)
    parts = in_shared_blocks(network, large)
    assert len(parts.networks) == 3
    assert "matrix.weight" in parts.external and "vector" not in parts.external
    assert {str(constant.weight) for constant in parts.networks[1].constants()} >= {"reshape(vector, [1, 5])"}
    taken = [call.tensors["matrix.weight"] for call in parts.schedule.calls if call.part == 1]
    assert taken == ["matrix.weight"] * 3


def test_what_is_bound_is_named_after_the_constant_that_has_the_numbers():
    network = network_of(Chain(*blocks(2.0, 2.0)))
    stored = weights_by_value(network)
    for name, value in in_shared_blocks(network, 1).external.items():
        assert name in str(stored[value])


@pytest.mark.parametrize(
    ("factors", "block"),
    [
        ((2.0, 2.0, 3.0, 2.0, 2.0), (5, 2)),
        ((3.0, 2.0, 2.0, 2.0), (5, 3)),
        ((2.0, 3.0, 2.0, 3.0), (10, 2)),
        ((2.0, 3.0, 4.0), None),
    ],
)
def test_blocks_with_another_number_are_no_likes(factors, block):
    made = runs(check_parts(Chain(*blocks(*factors))))
    assert made[1:2] == ([block] if block else [])


class Wired(Chain):
    """Blocks of two residuals, of which each says what it reads the second time: the value of `back` blocks before,
    that of the block's middle for 0, the chain's very first for None."""

    def __init__(self, *backs):
        super().__init__(*blocks(*[2.0] * len(backs)))
        self.backs = backs

    def forward(self, x):
        first = self.first(x)
        made = [first] * 3
        for block, back in zip(self.blocks, self.backs):
            middle = block(made[-1])
            read = middle if back == 0 else first if back is None else made[-back]
            made.append(torch.sigmoid(middle) * read)
        return self.last(made[-1])


@pytest.mark.parametrize(
    "backs",
    [
        (1, 1, 1, 1),
        (0, 0, 0, 0),
        (1, 1, 2, 1),
        (2, 2, 2, 2),
        (1, 0, 1, 0),
        (0, 1, 1, 1),
        (1, 1, 1, 0),
        (None, None, None),
        (1, None, 2, None),
        (3, 2, 1, 0, None, 1, 1),
    ],
    ids=str,
)
def test_blocks_read_what_their_own_wires_lead_to(backs):
    check_parts(Wired(*backs))


def test_blocks_that_read_one_value_in_two_places_are_not_those_that_read_two():
    """Blocks 0 and 2 take the same value twice, block 1 two different ones."""
    check_parts(Wired(1, 2, 1, 2, 2))


@pytest.mark.parametrize("chosen", [(-1,), (-2,), (0, -1), (1, 3), (3, 2, 1), (0, 1, 2, 3, 4, 5)], ids=str)
def test_values_of_blocks_that_are_read_later_come_out_right(chosen):
    network = check_parts(Towered(chosen, *blocks(*[2.0] * 5)))
    count = max(index % 6 for index in chosen)
    assert runs(network)[1] == (5, count)


class Open(Chain):
    """A tower whose outputs are its blocks' values, of which some are read again, and what blocks have inside."""

    def forward(self, x):
        x = first = self.first(x)
        made = []
        for block in self.blocks:
            inner = torch.tanh(block.linear(x))
            x = block(x)
            made += [inner, x]
        return first, *made, self.last(x), self.last.weight, self.first.bias


def test_values_inside_blocks_and_constants_that_are_outputs_come_out_right():
    outputs = ("first", *(f"{kind} {index}" for index in range(4) for kind in ("inner", "state")), "y", "w", "b")
    network = check_parts(Open(*blocks(2.0, 2.0, 2.0, 2.0)), outputs)
    assert runs(network)[1][1] == 4
    parts = in_shared_blocks(network, 1)
    made = [call.tensors[name] for call in parts.schedule.calls for name in parts.networks[call.part].outputs]
    assert set(made) >= set(outputs)
    assert not set(outputs) & set(parts.schedule.between)
    assert "last.weight" not in parts.external


class Convolved(nn.Module):
    """Convolutions in a row, or blocks behind one."""

    def __init__(self, convolutions, *blocks):
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(2, 2, 3, padding=1) for _ in range(convolutions))
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x):
        for convolution in self.convolutions:
            x = torch.tanh(convolution(x))
        for block in self.blocks:
            x = block(x)
        return x


@pytest.mark.parametrize("least_bytes", [1, 1 << 20])
@pytest.mark.parametrize(("convolutions", "count"), [(4, 0), (1, 3)])
def test_kernels_stay_inside(convolutions, count, least_bytes):
    module, x = Convolved(convolutions, *(Block() for _ in range(count))), torch.randn(1, 2, 3, WIDTH)
    network = check_parts(module, least_bytes=least_bytes, x=x)
    parts = in_shared_blocks(network, least_bytes)
    assert not any("convolutions" in name and "weight" in name for name in parts.external)
    kernels = [node.inputs[1] for part in parts.networks for node in part.nodes if isinstance(node.layer, Convolution)]
    assert len(kernels) == convolutions
    inside = {name for part in parts.networks for name in weights_by_value(part)}
    assert inside >= set(kernels)


class Started(nn.Module):
    """Blocks that add to what they read a weight in one case, a computed value in the other."""

    def __init__(self, *is_weight):
        super().__init__()
        self.is_weight = is_weight
        self.start = nn.Parameter(torch.randn(3, WIDTH))
        self.blocks = nn.ModuleList(Block() for _ in is_weight)

    def forward(self, x):
        computed = torch.exp(x)
        for block, is_weight in zip(self.blocks, self.is_weight):
            x = block(x * (self.start if is_weight else computed))
        return x


@pytest.mark.parametrize("is_weight", [(False, True, False), (True, False, True), (True, False, False)], ids=str)
def test_what_is_a_weight_in_one_block_may_be_computed_in_another(is_weight):
    check_parts(Started(*is_weight))


def test_every_kind_of_layer_is_in_a_part():
    network, inputs, source = every_layer_network()
    before = run_in_parts(network, inputs, Constants(network, source), divide=as_a_whole)
    for divide in DIVISIONS.values():
        assert_close(run_in_parts(network, inputs, Constants(network, source), divide=divide), before)
    kinds = {type(node.layer) for part in in_shared_blocks(network).networks for node in part.nodes}
    assert kinds == {type(node.layer) for node in network.nodes}


def test_a_network_with_its_weights_inside_is_one_part_with_its_own_names():
    network = network_of(Chain(*blocks(2.0, 2.0)))
    parts = as_a_whole(network)
    assert parts.networks == (network,) and parts.external == {} and parts.schedule.between == {}
    (call,) = parts.schedule.calls
    assert (call.part, call.tensors) == (0, {"x": "x", "result": "result"})
    check(network)


def test_a_size_that_is_an_output_is_made():
    module = Chain(*blocks(2.0, 2.0, 2.0))
    network = network_of(module)
    network.output("sizes", network.add(Shape(), network.value("x")))
    found = run_in_parts(network, {"x": X}, Constants(network, ModuleTensors(module)))
    assert found["sizes"].tolist() == list(X.shape)


def test_with_weights_inside_each_block_is_a_part_of_its_own():
    network = network_of(Chain(*blocks(2.0, 2.0, 2.0, 2.0)))
    parts, cut = in_embedded_blocks(network), in_shared_blocks(network, 1)
    assert not parts.external
    assert [call.part for call in parts.schedule.calls] == list(range(1 + 4 + 1))
    assert parts.schedule.between == cut.schedule.between
    held = Counter(name for part in parts.networks for name in _stored(part))
    assert set(held.values()) == {1} and held.keys() == _stored(network)


def _stored(network):
    """The checkpoint's tensors in a network."""
    return {name for constant in network.constants() for name in stored_names(constant.weight)}


def test_with_weights_inside_blocks_that_share_a_weight_have_it_each():
    network = check_parts(Shared(*blocks(2.0, 2.0, 2.0)))
    parts = in_embedded_blocks(network)
    holders = [any("matrix.weight" in str(each.weight) for each in part.constants()) for part in parts.networks]
    assert holders == [False, True, True, True, False]


def test_what_repeats_nothing_is_one_part_with_weights_inside():
    network = check_parts(Chain(*blocks(2.0)))
    parts = in_embedded_blocks(network)
    assert len(parts.networks) == len(parts.schedule.calls) == 1
