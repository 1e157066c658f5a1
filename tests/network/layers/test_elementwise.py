"""Elementwise layers against Python's own arithmetic, one element at a time."""

from __future__ import annotations

import math
import operator
from typing import get_args

import pytest
import torch

from ditto.network.layers import Activation, Cast, ElementWise, Select, Unary
from ditto.network.layers.elementwise import ActivationFunction, ElementWiseOp, UnaryOp
from tests.support.layers import FLOATS, check_layer
from tests.support.networks import refusal

BINARY = {
    "SUM": operator.add,
    "PROD": operator.mul,
    "MAX": max,
    "MIN": min,
    "SUB": operator.sub,
    "DIV": lambda x, y: x / y if isinstance(x, float) else math.trunc(x / y),
    "POW": operator.pow,
    "FLOOR_DIV": operator.floordiv,
    "AND": operator.and_,
    "OR": operator.or_,
    "XOR": operator.xor,
    "EQUAL": operator.eq,
    "GREATER": operator.gt,
    "LESS": operator.lt,
}
LOGICAL, COMPARISONS = ("AND", "OR", "XOR"), ("EQUAL", "GREATER", "LESS")
UNARY = {
    "EXP": math.exp,
    "LOG": math.log,
    "SQRT": math.sqrt,
    "RECIP": lambda x: 1 / x,
    "ABS": abs,
    "NEG": operator.neg,
    "SIN": math.sin,
    "COS": math.cos,
    "FLOOR": math.floor,
    "CEIL": math.ceil,
    "ERF": math.erf,
    "NOT": operator.not_,
}
ACTIVATIONS = {
    "RELU": lambda x: max(x, 0.0),
    "SIGMOID": lambda x: 1 / (1 + math.exp(-x)),
    "TANH": math.tanh,
    "GELU_ERF": lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2,
    "GELU_TANH": lambda x: x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
}


def each(function, dtype, *tensors):
    """`function` of the elements of tensors of one shape, as a tensor of `dtype`."""
    numbers = [function(*elements) for elements in zip(*(x.flatten().tolist() for x in tensors))]
    return torch.tensor(numbers).to(dtype).reshape(tensors[0].shape)


def test_every_function_is_tried():
    tables = [(ElementWiseOp, BINARY), (UnaryOp, UNARY), (ActivationFunction, ACTIVATIONS)]
    assert all(set(get_args(names)) == set(table) for names, table in tables)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("op", [op for op in BINARY if op not in LOGICAL])
def test_binary_operations_of_numbers_are_those_of_python(op, dtype):
    x, y = (torch.rand(2, 4) * 3 + 0.25).to(dtype), (torch.rand(2, 4) * 2 + 0.25).to(dtype)
    y[0] = x[0]
    wanted = each(BINARY[op], torch.bool if op in COMPARISONS else dtype, x, y)
    check_layer(ElementWise(op), [x, y], wanted)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("op", [op for op in BINARY if op not in (*LOGICAL, "POW")])
def test_binary_operations_of_integers_are_those_of_python(op, dtype):
    x, y = torch.tensor([7, -7, 7, -7, 6, 3]).to(dtype), torch.tensor([2, 2, -2, -2, 3, 3]).to(dtype)
    wanted = each(BINARY[op], torch.bool if op in COMPARISONS else dtype, x, y)
    check_layer(ElementWise(op), [x, y], wanted)


@pytest.mark.parametrize("op", [*LOGICAL, "EQUAL"])
def test_binary_operations_of_truths_are_those_of_python(op):
    x, y = torch.tensor([[True, False]]).repeat(2, 1).flatten(), torch.tensor([True, True, False, False])
    check_layer(ElementWise(op), [x, y], each(BINARY[op], torch.bool, x, y))


def test_sizes_of_1_broadcast():
    x, y = torch.randn(2, 1, 3), torch.randn(1, 4, 3)
    wanted = each(operator.sub, torch.float32, x.repeat(1, 4, 1), y.repeat(2, 1, 1))
    check_layer(ElementWise("SUB"), [x, y], wanted, dynamic={0: "batch"})


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("op", [op for op in UNARY if op != "NOT"])
def test_unary_operations_are_those_of_python(op, dtype):
    x = (torch.rand(2, 6) * 2 + 0.25).to(dtype)
    if op not in ("LOG", "SQRT"):
        x[0] *= -1
    check_layer(Unary(op), [x], each(UNARY[op], dtype, x), dynamic={0: "batch"})


@pytest.mark.parametrize(("op", "dtype"), [("NEG", torch.int64), ("ABS", torch.int32), ("NOT", torch.bool)])
def test_some_unary_operations_take_integers_or_truths(op, dtype):
    x = torch.tensor([-2, 0, 3]).to(dtype)
    check_layer(Unary(op), [x], each(UNARY[op], dtype, x))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("function", ACTIVATIONS)
def test_activations_are_their_formulas(function, dtype):
    x = torch.linspace(-3, 3, 12).reshape(3, 4).to(dtype)
    check_layer(Activation(function), [x], each(ACTIVATIONS[function], dtype, x), dynamic={0: "batch"})


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("to", "convert"),
    [(torch.float32, float), (torch.int32, int), (torch.int64, int), (torch.bool, bool), (torch.float16, float)],
)
def test_a_cast_keeps_the_numbers(to, convert, dtype):
    x = torch.tensor([-1.75, 0.0, 2.5]).to(dtype)
    check_layer(Cast(to), [x], each(convert, to, x), dynamic={0: "batch"})


@pytest.mark.parametrize("dtype", [*FLOATS, torch.int64, torch.bool])
def test_select_chooses_each_element(dtype):
    condition, x, y = torch.rand(2, 3) < 0.5, torch.randn(2, 3).to(dtype), torch.randn(2, 3).to(dtype)
    wanted = each(lambda c, a, b: a if c else b, dtype, condition, x, y)
    check_layer(Select(), [condition, x, y], wanted)


def test_select_broadcasts_all_three():
    condition, x, y = torch.rand(2, 1) < 0.5, torch.randn(1, 3), torch.randn(1, 1)
    grid = [z.repeat(2 // z.shape[0], 3 // z.shape[1]) for z in (condition, x, y)]
    wanted = each(lambda c, a, b: a if c else b, torch.float32, *grid)
    check_layer(Select(), [condition, x, y], wanted, dynamic={0: "batch"})


@pytest.mark.parametrize(
    ("layer", "specs", "message"),
    [
        (ElementWise("SUM"), ["float32[2]", "float16[2]"], "needs equal dtypes, got float32[2] and float16[2]"),
        (ElementWise("SUM"), ["float32[2]", "float32[1, 2]"], "needs equal ranks to broadcast, got [2] and [1, 2]"),
        (ElementWise("SUM"), ["float32[2]", "float32[3]"], "cannot broadcast [2] with [3]"),
        (ElementWise("SUM"), ["bool[2]", "bool[2]"], "SUM of bool tensors, got bool[2] and bool[2]"),
        (ElementWise("LESS"), ["bool[2]", "bool[2]"], "LESS of bool tensors, got bool[2] and bool[2]"),
        (ElementWise("OR"), ["int32[2]", "int32[2]"], "OR needs bool tensors, got int32[2] and int32[2]"),
        (Unary("NOT"), ["int32[2]"], "NOT needs a bool tensor, got int32[2]"),
        (Unary("EXP"), ["int32[2]"], "needs a floating dtype, got int32[2]"),
        (Unary("NEG"), ["bool[2]"], "needs a floating dtype, got bool[2]"),
        (Activation("RELU"), ["int64[2]"], "needs a floating dtype, got int64[2]"),
        (Select(), ["int32[2]", "float32[2]", "float32[2]"], "the condition needs to be bool, got int32[2]"),
        (Select(), ["bool[2]", "float32[2]", "float16[2]"], "needs equal dtypes, got float32[2] and float16[2]"),
        (Select(), ["bool[2]", "float32[3]", "float32[1]"], "cannot broadcast [2] with [3] with [1]"),
    ],
)
def test_elementwise_layers_refuse_what_does_not_fit(layer, specs, message):
    assert refusal(layer, *specs) == message
