"""Modules and operators as networks, compared with PyTorch."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from ditto.lowering import lower, table
from ditto.network import Network
from ditto.network.dims import evaluate
from ditto.network.weight import Stored
from ditto.reference import TOLERANCE, Constants, run
from tests.support.layers import emitted
from tests.support.programs import FunctionModule, captured

BATCH = 3  # the size of a sample's first axis that may become dynamic; no other axis has it


class ModuleTensors:
    """A module as the source of its parameters."""

    def __init__(self, module):
        self.module = module

    def tensor(self, name):
        return self.module.get_parameter(name).detach()


def lowered(module, inputs, names=None, lowerings=None, outputs=("result",)) -> Network:
    """A module as a network, as it is captured: without any rewrite."""
    module = module if isinstance(module, nn.Module) else FunctionModule(module)

    def weight_of(name):
        parameter = module.get_parameter(name)
        return Stored(name, tuple(parameter.shape), parameter.dtype)

    return lower(captured(module, inputs, names, outputs), lowerings or table(), weight_of, "net")


def check_meaning(network, module, inputs, sizes=None):
    """Compare a network with its module: numbers, dtypes, and the shapes that the network states."""
    wanted = module(*inputs.values())
    found = run(network, inputs, Constants(network, ModuleTensors(module)))
    for (name, value), tensor in zip(network.outputs.items(), wanted if isinstance(wanted, tuple) else (wanted,)):
        assert_close(
            found[name],
            tensor,
            **TOLERANCE[tensor.dtype],
            equal_nan=True,
            msg=lambda text, name=name: f"{name}: {text}",
        )
        spec = network.value(value).spec
        assert spec.dtype == tensor.dtype
        assert tuple(evaluate(dim, sizes or {}) for dim in spec.shape) == tuple(tensor.shape)


class Row:
    """A call of an operator: tensors and numbers as its arguments. One of its results is what counts.

    Args:
        static: no axis of it may be dynamic.
    """

    def __init__(self, *args, static=False, result=None, **kwargs):
        self.args, self.kwargs, self.static, self.result = args, kwargs, static, result
        flat = [leaf for arg in args for leaf in (arg if isinstance(arg, list) else [arg])]
        self.tensors = [leaf for leaf in flat if isinstance(leaf, torch.Tensor)]

    @property
    def forms(self):
        """Which of its tensors are constants: none, each on its own, all."""
        every = range(len(self.tensors))
        return [(), *([i] for i in every if len(every) > 1), every]


class OperatorCalls(nn.Module):
    """Calls of an operator as a module: a result for each row in each of its forms. Every tensor is both an input and
    a parameter (a buffer if it is not floating); a form says which of the two a call takes."""

    def __init__(self, operator, rows, in_every_form):
        super().__init__()
        self.operator = operator
        tensors = {id(tensor): tensor for row in rows for tensor in row.tensors}
        places = {key: i for i, key in enumerate(tensors)}
        self.calls = {
            f"row{r}_form{f}": (row, [places[id(tensor)] for tensor in row.tensors], frozenset(form))
            for r, row in enumerate(rows)
            for f, form in enumerate(row.forms if in_every_form else [()])
        }
        self.inputs = {f"x{i}": tensor for i, tensor in enumerate(tensors.values())} or {"unused": torch.zeros(1)}
        for i, tensor in enumerate(tensors.values()):
            if tensor.is_floating_point():
                self.register_parameter(f"weight{i}", nn.Parameter(tensor, requires_grad=False))
            else:
                self.register_buffer(f"weight{i}", tensor)

    # fmt: off
    def forward(  # torch.export wants them by name
        self, a, b=None, c=None, d=None, e=None, f=None, g=None, h=None, i=None, j=None, k=None, m=None, n=None,
        p=None, q=None, r=None, s=None, t=None, u=None,
    ):
        inputs = (a, b, c, d, e, f, g, h, i, j, k, m, n, p, q, r, s, t, u)
        return tuple(self._called(inputs, *call) for call in self.calls.values())
    # fmt: on

    def _called(self, inputs, row, places, form):
        count = iter(range(len(row.tensors)))

        def value(arg):
            if isinstance(arg, list):
                return [value(item) for item in arg]
            if not isinstance(arg, torch.Tensor):
                return arg
            index = next(count)
            return getattr(self, f"weight{places[index]}") if index in form else inputs[places[index]]

        made = self.operator(*(value(arg) for arg in row.args), **row.kwargs)
        return made if row.result is None else made[row.result]


_AT_ONCE = 6  # rows of a capture, which costs more than what is in it


def rows(table):
    """Parameters of a test over a table of rows by operator."""
    return [
        pytest.param(operator, rows[i : i + _AT_ONCE], id=f"{operator}-{i}")
        for operator, rows in table.items()
        for i in range(0, len(rows), _AT_ONCE)
    ]


def check_rows(operator, rows):
    """Lower rows in every form, and with dynamic first axes."""
    calls = OperatorCalls(operator, rows, in_every_form=True)
    network = lowered(calls, calls.inputs, outputs=tuple(calls.calls))
    check_meaning(network, calls, calls.inputs)
    emitted(network, ModuleTensors(calls))
    dynamic = [row for row in rows if not row.static]
    if dynamic:
        calls = OperatorCalls(operator, dynamic, in_every_form=False)
        check_dynamic(calls, calls.inputs, tuple(calls.calls))


def check_dynamic(module, inputs, outputs=("result",)):
    """Lower with every first axis of size `BATCH` dynamic, and run with that size, with 1 and with more."""
    names = {name: "batch" for name, tensor in inputs.items() if tensor.shape[:1] == (BATCH,)}
    network = lowered(module, inputs, names, outputs=outputs)
    emitted(network, ModuleTensors(module))
    for index in (torch.arange(BATCH), torch.tensor([0]), torch.tensor([2, 0, 1, 1, 0])):
        resized = {name: x[index] if name in names else x for name, x in inputs.items()}
        check_meaning(network, module, resized, {"batch": len(index)})


def check_every_lowering_has_rows(table_of_rows, module):
    """Check that the table has rows for each operator that `ditto.lowering.<module>` lowers, and for no other."""
    home = f"ditto.lowering.{module}"
    operators = [operator for operator, function in table().items() if function.__module__ == home]
    assert sorted(map(str, table_of_rows)) == sorted(map(str, operators))
    assert all(table_of_rows.values()), [str(operator) for operator, rows in table_of_rows.items() if not rows]
