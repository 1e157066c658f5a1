"""What depends on a token's position alone becomes a table; what mixes positions does not."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from ditto.rewrite.tables import tabulate
from tests.support.layers import FLOATS
from tests.support.programs import FunctionModule, captured, operators, run_program
from tests.support.rewriting import check_applies, check_misses

aten = torch.ops.aten

COUNT = 16
FREQUENCIES = {"f": torch.logspace(0, -2, 4)}
BATCHED = torch.tensor([[0, 5, 15, 2], [7, 7, 1, 9], [3, 4, 5, 6]])
tables = partial(tabulate, positions="positions", count=COUNT)


def _angles(self, positions):
    return positions.float()[..., None] * self.f


def _hugging_face(self, positions):
    frequencies = self.f[None, :, None].expand(positions.shape[0], -1, 1)
    angles = (frequencies.float() @ positions[:, None, :].float()).transpose(1, 2)
    return torch.cat((angles, angles), -1).cos()


def _scaled(self, positions):
    angles = _angles(self, positions)
    return torch.where(angles > 3, angles / 2, angles * 1.5).sin() * 0.7


def _of_a_batch_axis_added(self, positions):
    return (positions[None].float()[..., None] * self.f).cos()


def _rounded(self, positions):
    return _angles(self, positions).cos().to(torch.float16)


def _of_frequencies_made_each_time(self, positions):
    return (positions.float()[..., None] / 100.0 ** (torch.arange(0, 8, 2, dtype=torch.float) / 8)).cos()


# A form, and of how many results of it a table is made: what is compared is one as well.
FORMS = [(_hugging_face, 1), (_scaled, 2), (_rounded, 1), (_of_frequencies_made_each_time, 1)]


@pytest.mark.parametrize("integer", [torch.int32, torch.int64])
@pytest.mark.parametrize(("function", "times"), FORMS)
def test_functions_of_a_position_become_rows_of_a_table(function, times, integer):
    module, inputs = FunctionModule(function, buffers=FREQUENCIES), {"positions": BATCHED.to(integer)}
    program = check_applies(tables, module, inputs, times, names={"positions": "batch sequence"})
    assert operators(program) == [aten.embedding.default]
    (rows,) = program.outputs
    table = program.constants[rows.args[0].target]
    assert table.shape[0] == COUNT and table.is_contiguous()


@pytest.mark.parametrize(("function", "times"), [(_scaled, 2), (_of_a_batch_axis_added, 1)])
def test_positions_may_be_one_row(function, times):
    module = FunctionModule(function, buffers=FREQUENCIES)
    program = check_applies(tables, module, {"positions": BATCHED[0]}, times, names={"positions": "tokens"})
    assert aten.embedding.default in operators(program)
    assert aten.cos.default not in operators(program) and aten.sin.default not in operators(program)


@pytest.mark.parametrize("dtype", FLOATS)
def test_each_result_of_a_chain_has_its_table_in_its_own_dtype(dtype):
    def both(self, positions, x):
        angles = _angles(self, positions)
        return angles.cos().to(x.dtype) * x + angles.sin().to(x.dtype)

    module = FunctionModule(both, buffers=FREQUENCIES)
    inputs = {"positions": BATCHED, "x": torch.randn(3, 4, 4).to(dtype)}
    program = check_applies(tables, module, inputs, times=2, names={"positions": "batch", "x": "batch"})
    assert [table.dtype for table in program.constants.values() if len(table) == COUNT] == [dtype, dtype]
    assert operators(program).count(aten.embedding.default) == 2


def test_every_position_up_to_the_last_has_its_row():
    program = captured(FunctionModule(_scaled, buffers=FREQUENCIES), {"positions": BATCHED})
    tables(program)
    everywhere = torch.arange(12).reshape(3, 4) + 4
    module = FunctionModule(_scaled, buffers=FREQUENCIES)
    assert torch.equal(run_program(program, {"positions": everywhere}), module(everywhere))


MIXING = {
    "a running sum": lambda self, positions: _angles(self, positions).cumsum(1),
    "a difference of neighbours": lambda self, positions: (
        _angles(self, positions) - _angles(self, positions.roll(1, 1))
    ),
    "the largest in sight": lambda self, positions: torch.where(
        positions.max() > 6, _angles(self, positions).cos(), _angles(self, positions).sin()
    ),
    "the smallest in sight": lambda self, positions: torch.where(
        positions.min() > 12, _angles(self, positions).cos(), _angles(self, positions).sin()
    ),
    "the length": lambda self, positions: _angles(self, positions).cos() * positions.shape[1],
    "the place in the sequence": lambda self, positions: (
        _angles(self, positions) + torch.arange(positions.shape[1])[:, None]
    ),
    "a mean": lambda self, positions: _angles(self, positions) - _angles(self, positions).mean(1, keepdim=True),
}


@pytest.mark.parametrize("function", MIXING.values(), ids=MIXING)
def test_functions_that_mix_positions_are_computed_at_run_time(function):
    module = FunctionModule(function, buffers=FREQUENCIES)
    names = {"positions": "batch sequence"}
    program = captured(module, {"positions": BATCHED}, names)
    tables(program)
    for positions in (BATCHED, torch.arange(3)[None], torch.tensor([[13, 15]])):
        assert torch.equal(run_program(program, {"positions": positions}), module(positions))


OTHERS = {
    "integers": lambda self, positions: positions.unsqueeze(-1) * 2 + 1,
    "another input's": lambda self, positions, x: x.unsqueeze(-1) * 1.5 + self.f,
    "another input's too": lambda self, positions, x: (positions + x).unsqueeze(-1) * 1.5 + self.f,
    "without a width": lambda self, positions: positions * 1.5,
}


@pytest.mark.parametrize("function", OTHERS.values(), ids=OTHERS)
def test_other_functions_are_computed_at_run_time(function):
    inputs = {"positions": BATCHED}
    if function.__code__.co_argcount == 3:
        inputs["x"] = torch.rand(3, 4)
    check_misses(tables, FunctionModule(function, buffers=FREQUENCIES), inputs)


def test_functions_of_weights_are_computed_at_run_time():
    module = FunctionModule(lambda self, positions: (positions.unsqueeze(-1) * self.f).cos(), FREQUENCIES)
    check_misses(tables, module, {"positions": BATCHED})


def test_a_model_without_that_input_stays():
    module = FunctionModule(_scaled, buffers=FREQUENCIES)
    check_misses(partial(tabulate, positions="position_ids", count=COUNT), module, {"positions": BATCHED})
