"""What computes nothing goes, casts get one spelling, and writes in place are never lost."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import dropout

from ditto.errors import UnsupportedFeature
from ditto.network.spec import Spec
from ditto.rewrite.clean import clean, refuse_writes
from tests.support.programs import IN_PLACE_WRITES, FunctionModule, captured, operators, run_program

aten = torch.ops.aten

X = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))

NOTHING = {
    "clone": lambda x: x.clone(),
    "detach": lambda x: x.detach(),
    "detach in place": lambda x: (x + 0).detach_(),
    "alias": lambda x: torch.ops.aten.alias(x),
    "cast to its own dtype": lambda x: x.float(),
    "move to its own device": lambda x: x.to("cpu"),
    "cast like itself": lambda x: x.type_as(x),
    "view of its own shape": lambda x: x.view(-1, 3, 4),
    "reshape to its own shape": lambda x: x.reshape(x.shape),
    "expand to its own shape": lambda x: x.expand(-1, 3, -1),
    "slice of everything": lambda x: x[:, :, :],
    "slice of more than everything": lambda x: x[:, :9],
    "flattening of one axis": lambda x: x.flatten(1, 1),
    "squeeze of nothing": lambda x: x.squeeze(1).squeeze(),
    "dropout of nothing": lambda x: dropout(x, 0.5, training=False),
    "times one": lambda x: x * 1 * 1.0,
    "over one": lambda x: x / 1,
    "joined with nothing": lambda x: torch.cat((x[..., 4:], x, x[..., 4:]), -1),
    "plus zero": lambda x: x + 0 - 0.0,
}


@pytest.mark.parametrize("function", NOTHING.values(), ids=NOTHING)
@pytest.mark.parametrize("names", [None, {"x": "batch"}], ids=["static", "dynamic"])
def test_what_changes_nothing_goes(function, names):
    program = captured(lambda x: function(torch.relu(x)), {"x": X}, names)
    before = run_program(program, {"x": X})
    assert clean(program) > 0
    assert operators(program) == [aten.relu.default]
    assert torch.equal(run_program(program, {"x": X}), before)
    assert clean(program) == 0


def test_operators_with_two_names_get_one():
    def function(x):
        y = torch.ops.aten.multiply.Tensor(x, torch.ops.aten.subtract.Tensor(x, 2))
        return torch.ops.aten.concat([torch.ops.aten.divide.Tensor(y, x), x], -1)

    program = captured(function, {"x": X})
    clean(program)
    assert operators(program) == [aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor, aten.cat.default]
    assert torch.equal(run_program(program, {"x": X}), function(X))


def test_layout_is_nothing():
    def merged(x):
        return x.transpose(1, 2).contiguous().view(2, 12)

    program = captured(merged, {"x": X})
    clean(program)
    assert operators(program) == [aten.transpose.int, aten.reshape.default]
    assert torch.equal(run_program(program, {"x": X}), merged(X))


SOMETHING = {
    "cast": lambda x: x.half(),
    "view": lambda x: x.view(-1, 12),
    "expand": lambda x: x[:, :1].expand(-1, 3, -1),
    "slice": lambda x: x[:, 1:],
    "every other": lambda x: x[:, :, ::2],
    "squeeze": lambda x: x[:, :1].squeeze(1),
    "dropout": lambda x: dropout(x, 0.0, training=True),
    "times one, wider": lambda x: x.half() * torch.ones(1),
    "times two": lambda x: x * 2,
    "one minus": lambda x: 1 - x,
    "broadcast": lambda x: x[:, :1] + torch.zeros(3, 4),
}


@pytest.mark.parametrize("function", SOMETHING.values(), ids=SOMETHING)
def test_what_changes_something_stays(function):
    program = captured(lambda x: function(torch.relu(x)), {"x": X})
    before = operators(program)
    clean(program)
    assert operators(program) == [aten.reshape.default if op == aten.view.default else op for op in before]
    assert torch.equal(run_program(program, {"x": X}), function(torch.relu(X)))


CASTS = {
    "half": lambda x: x.half(),
    "to dtype": lambda x: x.to(torch.float16),
    "to dtype, copied": lambda x: x.to(torch.float16, copy=True),
    "to device and dtype": lambda x: x.to("cpu", torch.float16),
    "to another": lambda x: x.to(torch.zeros(1, dtype=torch.float16)),
    "like another": lambda x: x.type_as(torch.zeros(1, dtype=torch.float16)),
    "copied": lambda x: torch.ops.aten._to_copy(x, dtype=torch.float16),
}


@pytest.mark.parametrize("function", CASTS.values(), ids=CASTS)
def test_casts_have_one_spelling(function):
    program = captured(function, {"x": X})
    clean(program)
    (result,) = program.outputs
    assert (result.target, result.args) == (aten.to.dtype, (program.inputs[0], torch.float16))
    assert operators(program) == [aten.to.dtype]
    assert program.spec(result) == Spec((2, 3, 4), torch.float16)
    assert torch.equal(run_program(program, {"x": X}), X.half())


def _clone_written_through_a_view(x):
    y = x.clone()
    y[:, 1:].mul_(3)
    return y + x


def _cast_to_its_own_dtype_and_written(x):
    y = x.to(torch.float32, copy=True)
    y[0].add_(1)
    return y + x


def _source_of_a_copy_written_later(x):
    y = x + 1
    kept = y.clone()
    y.view(-1).mul_(0)
    return kept + y


KEPT = [
    *IN_PLACE_WRITES,
    _clone_written_through_a_view,
    _cast_to_its_own_dtype_and_written,
    _source_of_a_copy_written_later,
]


@pytest.mark.parametrize("function", KEPT)
def test_copies_whose_memory_is_written_stay(function):
    x = X[0]
    program = captured(function, {"x": x})
    clean(program)
    assert torch.equal(run_program(program, {"x": x}), function(x.clone()))


@pytest.mark.parametrize("function", KEPT)
def test_writes_that_an_output_needs_are_refused(function):
    program = captured(function, {"x": X[0]})
    clean(program)
    with pytest.raises(UnsupportedFeature, match=r"^`aten\.\w+_\.\w+` writes into its argument") as raised:
        refuse_writes(program)
    assert raised.value.remedy == "write the model without in-place operators there"
    assert str(raised.value.where).startswith(("programs.py:", "test_clean.py:"))


def test_programs_without_writes_are_not_refused():
    module = FunctionModule(lambda self, x: torch.relu(x + self.w).detach_(), {"w": torch.randn(4)})
    assert refuse_writes(captured(module, {"x": X})) == 0
