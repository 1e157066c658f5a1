"""Lowering keeps weights as references, folds what is constant, and names everything that it cannot lower."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from ditto.errors import ModelError, UnsupportedOperator
from ditto.lowering import lower, table
from ditto.network import Network, check
from ditto.network.dims import evaluate
from ditto.network.layers import Activation
from ditto.network.text import network_text
from ditto.network.weight import Folded, Literal, Stored, stored_names
from ditto.passes import SIMPLIFY, run_passes
from ditto.reference import TOLERANCE, Constants, run
from tests.support.layers import emitted
from tests.test_program import Says, captured

aten = torch.ops.aten


class Tensors:
    """A module as the source of its parameters."""

    def __init__(self, module):
        self.module = module

    def tensor(self, name):
        return self.module.get_parameter(name).detach()


def lowered(module, inputs, names=None, lowerings=None, outputs=("result",)) -> Network:
    """A module as a network, as it is captured: without any rewrite."""
    module = module if isinstance(module, nn.Module) else Says(module)

    def weight_of(name):
        parameter = module.get_parameter(name)
        return Stored(name, tuple(parameter.shape), parameter.dtype)

    return lower(captured(module, inputs, names, outputs), lowerings or table(), weight_of, "net")


def check_meaning(network, module, inputs, sizes=None):
    """Compare a network with its module: numbers, dtypes, and the shapes that the network states."""
    wanted = module(*inputs.values())
    found = run(network, inputs, Constants(network, Tensors(module)))
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


BATCH = 3  # the size of a sample's first axis that may become dynamic; no other axis has it


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
    emitted(network, Tensors(calls))
    dynamic = [row for row in rows if not row.static]
    if dynamic:
        calls = OperatorCalls(operator, dynamic, in_every_form=False)
        check_dynamic(calls, calls.inputs, tuple(calls.calls))


def check_dynamic(module, inputs, outputs=("result",)):
    """Lower with every first axis of size `BATCH` dynamic, and run with that size, with 1 and with more."""
    names = {name: "batch" for name, tensor in inputs.items() if tensor.shape[:1] == (BATCH,)}
    network = lowered(module, inputs, names, outputs=outputs)
    emitted(network, Tensors(module))
    for index in (torch.arange(BATCH), torch.tensor([0]), torch.tensor([2, 0, 1, 1, 0])):
        resized = {name: x[index] if name in names else x for name, x in inputs.items()}
        check_meaning(network, module, resized, {"batch": len(index)})


def test_a_parameter_stays_a_reference():
    module = Says(lambda self, x: x @ self.w + self.v, {"w": torch.randn(4, 2), "v": torch.randn(2)})
    network = lowered(module, {"x": torch.randn(3, 4)})
    weights = [constant.weight for constant in network.constants()]
    v = Stored("v", (2,), torch.float32)
    assert weights == [Stored("w", (4, 2), torch.float32), Folded("reshape", (v, (1, 2)), (1, 2), torch.float32)]
    assert not network.literals.tensors


def test_joined_weights_are_folded_and_stay_joined_outermost():
    module = Says(lambda self, x: x * torch.cat((self.v, self.w)), {"v": torch.randn(2), "w": torch.randn(3)})
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
    module = Says(_constants_only, parameters, {"positions": torch.arange(2)})
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
    module = Says(function, {"w": torch.randn(2)})
    network = lowered(module, {"x": torch.randn(2)})
    assert type(network.nodes[-1].layer).__name__ == last
    check(network)
    check_meaning(network, module, {"x": torch.randn(2)})
    emitted(network, Tensors(module))


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
        " (known: aten.cos.default, aten.bmm.default, aten.silu.default)"
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
    found = run(network, inputs, Constants(network, Tensors(None)))["result"]
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
