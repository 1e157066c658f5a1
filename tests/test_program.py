"""A program is a graph that runs: nothing its outputs need is lost, and every size and place has a name."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from ditto.arguments import TensorTypeHint
from ditto.capture import export
from ditto.errors import ModelError, Place
from ditto.network import Spec, dims, symbol
from ditto.program import evaluate, is_mutating, memory
from tests.support.programs import IN_PLACE_WRITES, captured, operators, run_program

aten = torch.ops.aten


def _polynomial(x, y):
    return torch.cat((x.reshape(-1), y.reshape(-1), x[:, 0] * 2))


def test_sizes_are_polynomials_in_the_named_dimensions():
    x, y = torch.randn(2, 3), torch.randn(5, 3)
    program = captured(_polynomial, {"x": x, "y": y}, {"x": "batch", "y": "rows"})
    wanted = dims.add(dims.multiply(symbol("batch"), 4), dims.multiply(symbol("rows"), 3))
    assert program.spec(program.outputs[0]) == Spec((wanted,), torch.float32)


def test_a_size_that_is_no_polynomial_is_refused():
    def half_as_many(x):
        return torch.arange((x.shape[0] + 3) // 2)

    program = captured(half_as_many, {"x": torch.randn(8, 3)}, {"x": "batch"})
    with pytest.raises(ModelError, match="is not a sum of products of input dimensions") as raised:
        program.spec(program.outputs[0])
    assert raised.value.remedy == "fix that dimension, or let the model compute it from its inputs' sizes"


@pytest.mark.parametrize("function", IN_PLACE_WRITES)
def test_writes_in_place_are_neither_swept_nor_skipped(function):
    x = torch.randn(2, 4)
    program = captured(function, {"x": x})
    assert any(map(is_mutating, program.graph.nodes))
    assert torch.equal(run_program(program, {"x": x}), function(x.clone()))


def test_a_write_that_nothing_needed_reads_is_swept():
    def lost(x):
        torch.zeros_like(x).add_(x)
        return x + 1

    assert operators(captured(lost, {"x": torch.randn(2)})) == [aten.add.Tensor]


def test_detaching_writes_nothing():
    program = captured(lambda x: (x + 1).detach_(), {"x": torch.randn(2)})
    assert not any(map(is_mutating, program.graph.nodes))


def test_memory_is_where_a_chain_of_views_starts():
    def chain(x):
        return torch.relu((x + 1).view(-1).chunk(2)[1].unsqueeze(0))

    program = captured(chain, {"x": torch.randn(2, 4)})
    by_target = {node.target: node for node in program.graph.nodes}
    assert memory(by_target[aten.unsqueeze.default]) is by_target[aten.add.Tensor]
    assert memory(by_target[aten.relu.default]) is by_target[aten.relu.default]


def test_sweeping_drops_what_is_dead_and_keeps_inputs():
    program = captured(lambda x, y: x + 1, {"x": torch.randn(2), "y": torch.randn(2)})
    (result,) = program.outputs
    with program.graph.inserting_before(result):
        program.constant(torch.ones(2), "dead")
    assert program.sweep() == 1
    assert program.sweep() == 0
    assert [node.target for node in program.inputs] == ["x", "y"]


def test_constants_never_share_a_name():
    program = captured(lambda x: x + 1, {"x": torch.randn(2)})
    with program.graph.inserting_before(program.outputs[0]):
        first, second = (program.constant(torch.full((2,), float(i)), "table") for i in range(2))
    assert first.target != second.target
    assert [program.constants[node.target][0].item() for node in (first, second)] == [0.0, 1.0]
    assert program.is_constant(first) and not program.is_constant(program.inputs[0])
    assert program.spec(first) == Spec((2,), torch.float32)


def test_a_fact_of_a_constant_is_found_out_once_for_each_constant():
    program = captured(lambda x: x + 1, {"x": torch.zeros(2)})
    asked: list[Tensor] = []

    def total(numbers: Tensor) -> float:
        asked.append(numbers)
        return float(numbers.sum())

    with program.graph.inserting_before(program.outputs[0]):
        ones, twos = (program.constant(torch.full((2,), number), "table") for number in (1.0, 2.0))
    assert [program.fact(node, total) for node in (ones, twos, ones, twos)] == [2.0, 4.0, 2.0, 4.0]
    assert len(asked) == 2
    assert program.fact(ones, len) == 2


def test_evaluating_some_nodes_asks_only_for_what_they_need():
    def both(x, y):
        return (x * 2).relu() + y

    program = captured(both, {"x": torch.randn(2), "y": torch.randn(2)})
    relu = next(node for node in program.graph.nodes if node.target == aten.relu.default)

    def no_parameter(name):
        raise AssertionError(name)

    (value,) = evaluate(program, {"x": torch.tensor([-1.0, 1.0])}, no_parameter, (relu,))
    assert value.tolist() == [0.0, 2.0]


@pytest.mark.parametrize("room", ["ditto.lowering", "ditto.rewrite"])
def test_rooms_that_work_on_programs_know_our_operators_on_their_own(room):
    subprocess.run([sys.executable, "-c", f"import {room}"], check=True)


class _Inner(nn.Module):
    def forward(self, x):
        return torch.relu(x)


class _Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([_Inner(), _Inner()])

    def forward(self, x):
        for block in self.blocks[:2]:
            x = block(x)
        return x + 1


class _Wrapper(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = _Outer()

    def forward(self, x):
        return self.model(x) * 2


def test_places_are_the_users_paths_and_lines():
    hints = {"x": TensorTypeHint((2,), torch.float32)}
    program = export(_Wrapper(), hints, ("result",), prefix="model.")
    nodes = [node for node in program.graph.nodes if node.op == "call_function"]
    places = [program.place(node) for node in nodes]
    assert [place.module for place in places] == ["blocks.0", "blocks.1", "", ""]
    lines = [_Inner.forward, _Inner.forward, _Outer.forward, _Wrapper.forward]
    first = [function.__code__.co_firstlineno for function in lines]
    offset = [1, 1, 3, 1]
    assert [place.source for place in places] == [f"test_program.py:{a + b}" for a, b in zip(first, offset)]
    with program.graph.inserting_before(nodes[0]):
        assert program.place(program.constant(torch.ones(1), "new")) == Place()
