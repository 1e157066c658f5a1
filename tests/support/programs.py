"""Programs of small functions and modules, and what they compute."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ditto.arguments import DynamicDimension, TensorTypeHint
from ditto.capture import export
from ditto.program import Program, evaluate


class FunctionModule(nn.Module):
    """A module whose forward is a function of up to four tensors, and of the module where it has parameters."""

    def __init__(self, function, parameters=(), buffers=()):
        super().__init__()
        self.function = function
        for name, value in dict(parameters).items():
            self.register_parameter(name, nn.Parameter(value, requires_grad=False))
        for name, value in dict(buffers).items():
            self.register_buffer(name, value)
        self.knows_itself = bool(parameters or buffers)

    def forward(self, a, b=None, c=None, d=None):
        given = [x for x in (a, b, c, d) if x is not None]
        return self.function(self, *given) if self.knows_itself else self.function(*given)


def captured(
    module, inputs: Mapping[str, Tensor], names: Mapping[str, str] | None = None, outputs=("result",)
) -> Program:
    """The program of a module or function.

    Args:
        inputs: a tensor for each of its arguments, in order.
        names: of an input's leading axes, blanks between; `.` for one that stays static.
    """
    hints = {}
    for name, tensor in inputs.items():
        shape = list(tensor.shape)
        for axis, dimension in enumerate((names or {}).get(name, "").split()):
            if dimension != ".":
                shape[axis] = DynamicDimension.up_to(dimension, 16)
        hints[name] = TensorTypeHint(tuple(shape), tensor.dtype)
    return export(module if isinstance(module, nn.Module) else FunctionModule(module), hints, outputs)


def run_program(program: Program, inputs: Mapping[str, Tensor], module: nn.Module | None = None) -> Tensor:
    """What a program of one output gives; inputs are left as they are."""
    parameters = {} if module is None else dict(module.named_parameters(remove_duplicate=False))
    copies = {name: tensor.clone() for name, tensor in inputs.items()}
    return evaluate(program, copies, parameters.__getitem__)[0]


def operators(program: Program) -> list:
    """The operators that a program calls, in order."""
    return [node.target for node in program.graph.nodes if node.op == "call_function"]


def _slice_assignment(x):
    y = x.clone()
    y[:, 1:] = 2 * x[:, :-1]
    return y


def _write_through_two_views(x):
    y = torch.zeros_like(x)
    y.view(-1)[:2].add_(1)
    return y + x


def _write_through_a_part_of_a_split(x):
    y = x * 1.0
    y.chunk(2, dim=1)[0].mul_(3)
    return y


def _write_then_read_the_view_made_before(x):
    y = x + 1
    view = y[0]
    y.mul_(2)
    return view


IN_PLACE_WRITES = [
    _slice_assignment,
    _write_through_two_views,
    _write_through_a_part_of_a_split,
    _write_then_read_the_view_made_before,
]
