"""A rewrite replaces what computes the same, and nothing that is one detail away."""

from __future__ import annotations

import importlib
import pkgutil

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import ditto.rewrite
from ditto.reference import TOLERANCE
from ditto.refusals import Refusal
from ditto.rewrite.norm import GEMMA_NORM, LLAMA_NORM, OLMO_NORM
from ditto.rewrite.rope import ROPE_OF_HALVES
from ditto.rewrite.rule import Rewrite, RewriteReport, arguments
from tests.support.layers import FLOATS
from tests.support.programs import FunctionModule, captured, operators
from tests.support.rewriting import check_misses

aten = torch.ops.aten

RULES = [ROPE_OF_HALVES, LLAMA_NORM, GEMMA_NORM, OLMO_NORM]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_pattern_and_replacement_compute_the_same(rule, dtype):
    sample = [x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x for x in rule.sample]
    wanted, found = rule.pattern(*sample), rule.replacement(*sample)
    assert found.dtype == wanted.dtype == dtype
    assert_close(found, wanted, **TOLERANCE[dtype])


def test_every_rewrite_is_among_those_compared():
    found = []
    for module in pkgutil.iter_modules(ditto.rewrite.__path__, "ditto.rewrite."):
        found += [x for x in vars(importlib.import_module(module.name)).values() if isinstance(x, Rewrite)]
    assert {rule.name for rule in found} == {rule.name for rule in RULES}


def _twice(x, factor):
    return torch.relu(x * factor) + x


def _tanh(x, factor):
    return torch.tanh(x) * factor + torch.relu(x)


# Not the same, so that a match shows: what is replaced, and by what, is seen in the operators.
EXAMPLE = Rewrite("example", _twice, _tanh, (torch.randn(2, 3), 37.5))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.relu(x * 2.5) + x,
        lambda x: x + torch.relu(x * 2.5),
        lambda x: x + torch.relu(2.5 * x),
    ],
    ids=["as written", "sum swapped", "product swapped"],
)
def test_operands_that_commute_may_come_in_either_order(function):
    program = captured(function, {"x": torch.randn(4, 5)})
    assert EXAMPLE(program).applied == 1
    assert EXAMPLE(program).applied == 0
    assert operators(program) == [aten.tanh.default, aten.mul.Tensor, aten.relu.default, aten.add.Tensor]
    (product,) = (node for node in program.graph.nodes if node.target == aten.mul.Tensor)
    assert product.args[1] == 2.5


NEAR_MISSES = {
    "another operator": lambda x: torch.sigmoid(x * 2.5) + x,
    "another operand": lambda x: torch.relu(x * 2.5) + 2 * x,
    "a tensor where a number belongs": lambda x: torch.relu(x * x) + x,
    "a number of another type": lambda x: torch.relu(x * 2) + x,
    "a factor of the sum": lambda x: torch.add(torch.relu(x * 2.5), x, alpha=2),
    "another rank": lambda x: torch.relu(x[0] * 2.5) + x[0],
}


@pytest.mark.parametrize("function", NEAR_MISSES.values(), ids=NEAR_MISSES)
def test_what_is_one_detail_away_stays(function):
    check_misses(EXAMPLE, function, {"x": torch.randn(4, 5)})


def test_operands_of_a_sum_with_a_factor_do_not_commute():
    rule = Rewrite("factor", lambda x: torch.add(torch.relu(x), x, alpha=3), torch.tanh, (torch.randn(2, 3),))
    check_misses(rule, lambda x: torch.add(x, torch.relu(x), alpha=3), {"x": torch.randn(4, 5)})


def test_a_rule_applies_everywhere_and_counts_each_once():
    def twice(x):
        y = torch.relu(x * 2.5) + x
        return torch.relu(y * 1.5) + y

    program = captured(twice, {"x": torch.randn(2, 3)})
    assert EXAMPLE(program).applied == 2
    assert operators(program).count(aten.tanh.default) == 2


def test_what_others_read_stays_beside_the_replacement():
    def shared(x):
        inner = torch.relu(x * 2.5)
        return inner + x, inner

    program = captured(lambda x: torch.cat(shared(x)), {"x": torch.randn(2, 3)})
    assert EXAMPLE(program).applied == 1
    assert operators(program).count(aten.relu.default) == 2


def test_a_condition_sees_what_each_parameter_matched():
    seen = []

    def refuse(program, found):
        seen.append(found)
        return "no"

    rule = Rewrite("example", _twice, _tanh, (torch.randn(2, 3), 37.5), refuse)
    check_misses(rule, lambda x: torch.relu(x * 2.5) + x, {"x": torch.randn(4, 5)})
    assert seen
    assert all((found["x"].target, found["factor"]) == ("x", 2.5) for found in seen)


def test_a_refusal_keeps_its_place_and_its_reason():
    def narrow(program, found):
        return None if found["factor"] < 2 else f"{found['factor']} is too large"

    rule = Rewrite("example", _twice, _tanh, (torch.randn(2, 3), 37.5), narrow)

    def thrice(x):
        y = torch.relu(x * 2.5) + x
        return torch.relu(y * 1.5) + y

    program = captured(thrice, {"x": torch.randn(4, 5)})
    (first, _) = (node for node in program.graph.nodes if node.target == aten.add.Tensor)
    wanted = Refusal(program.place(first), "2.5 is too large")
    assert rule(program) == RewriteReport(1, (wanted,))
    assert wanted.place.source


def test_a_replacement_that_does_not_fit_is_a_refusal():
    rule = Rewrite("wrong", lambda x: torch.relu(x), lambda x: x.flatten(), (torch.randn(2, 3),))
    (refusal,) = rule(captured(torch.relu, {"x": torch.randn(4, 5)})).refused
    assert refusal.reason == "the replacement has another shape or dtype"


def test_a_replacement_of_another_dtype_or_shape_is_not_put_in():
    def wide(x, factor):
        return (x * factor).double()

    def flat(x, factor):
        return (x * factor).flatten()

    for wrong in (wide, flat):
        rule = Rewrite("wrong", lambda x, factor: x + factor, wrong, (torch.randn(2, 3), 37.5))
        check_misses(rule, lambda x: torch.relu(x + 2.5), {"x": torch.randn(4, 5)})


def test_replacements_keep_their_place_and_have_shapes():
    program = captured(lambda x: torch.relu(x * 2.5) + x, {"x": torch.randn(4, 5)}, {"x": "batch"})
    (anchor,) = program.outputs
    place = program.place(anchor)
    EXAMPLE(program)
    for node in program.graph.nodes:
        if node.op == "call_function":
            assert program.place(node) == place
            assert str(program.spec(node)) == "float32[batch, 5]"


def test_arguments_have_names_defaults_and_axes_from_the_front():
    def calls(x):
        y = x.unsqueeze(-1).transpose(-2, 1).mean((-1, 0))
        return torch.stack((y, y), -1)

    program = captured(calls, {"x": torch.randn(2, 3, 4)})
    found = {node.target: arguments(node) for node in program.graph.nodes if node.op == "call_function"}
    assert found[aten.unsqueeze.default]["dim"] == 3
    assert {key: found[aten.transpose.int][key] for key in ("dim0", "dim1")} == {"dim0": 2, "dim1": 1}
    mean = found[aten.mean.dim]
    assert (mean["dim"], mean["keepdim"], mean["dtype"]) == ([3, 0], False, None)
    assert found[aten.stack.default]["dim"] == 2


def test_numbers_of_a_sample_stand_for_any_number_of_their_type():
    module = FunctionModule(lambda x: torch.relu(x * -0.0) + x)
    check = captured(module, {"x": torch.randn(2, 3)})
    assert EXAMPLE(check).applied == 1
