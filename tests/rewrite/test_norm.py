"""Norms are found in the ways in which models write them, and only there."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.olmo2.modeling_olmo2 import Olmo2RMSNorm

from ditto.rewrite.norm import GEMMA_NORM, LLAMA_NORM, OLMO_NORM
from tests.support.layers import FLOATS
from tests.support.models import TRANSFORMERS_5
from tests.support.programs import FunctionModule, captured, operators
from tests.support.rewriting import check_applies, check_misses

aten = torch.ops.aten

WIDTH = 8
RULES = {"llama": LLAMA_NORM, "gemma": GEMMA_NORM, "olmo": OLMO_NORM}


def _x(dtype=torch.float32, *shape):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape or (2, 3, WIDTH), generator=generator).to(dtype)


def _weight(dtype):
    return {"w": _x(dtype, WIDTH)}


def _normal(x, epsilon=1e-3, axis=-1):
    wide = x.float()
    return wide * torch.rsqrt(wide.pow(2).mean(axis, keepdim=True) + epsilon)


FORMS = {
    "llama": lambda self, x: self.w * _normal(x).to(x.dtype),
    "gemma": lambda self, x: (_normal(x) * (1.0 + self.w.float())).to(x.dtype),
    "olmo": lambda self, x: (self.w * _normal(x)).to(x.dtype),
}


def _swapped_llama(self, x):
    wide = x.to(torch.float32)
    return (torch.rsqrt(1e-3 + wide.pow(2).mean(-1, keepdim=True)) * wide).to(x.dtype) * self.w


def _swapped_gemma(self, x):
    wide = x.to(torch.float32)
    normal = torch.rsqrt(1e-3 + wide.pow(2).mean(-1, True)) * wide
    return ((1.0 + self.w.float()) * normal).type_as(x)


def _swapped_olmo(self, x):
    wide = x.to(torch.float32)
    return (torch.rsqrt(1e-3 + wide.pow(2).mean(-1, True)) * wide * self.w).type_as(x)


SWAPPED = {"llama": _swapped_llama, "gemma": _swapped_gemma, "olmo": _swapped_olmo}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("forms", [FORMS, SWAPPED], ids=["as written", "operands swapped"])
def test_norms_are_found(name, forms, dtype):
    module = FunctionModule(forms[name], _weight(dtype))
    program = check_applies(RULES[name], module, {"x": _x(dtype)}, names={"x": "batch"})
    left = operators(program)
    assert left.count(torch.ops.ditto.rms_norm.default) == 1
    assert not {aten.rsqrt.default, aten.mean.dim} & set(left)
    (norm,) = (node for node in program.graph.nodes if node.target == torch.ops.ditto.rms_norm.default)
    assert norm.args[2] == 1e-3


HUGGING_FACE = [
    (LlamaRMSNorm, LLAMA_NORM),
    (Gemma2RMSNorm, GEMMA_NORM),
    (Olmo2RMSNorm, OLMO_NORM if TRANSFORMERS_5 else LLAMA_NORM),  # which rounded first in 4.51
]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("cls", "rule"), HUGGING_FACE)
def test_hugging_faces_norms_are_found(cls, rule, dtype):
    module = cls(WIDTH, 1e-3).to(dtype)
    module.weight.data.copy_(_x(dtype, WIDTH))
    check_applies(rule, module, {"hidden_states": _x(dtype)})


# One detail away from Llama's form; the weight is `self.w`.
NEAR_MISSES = {
    "a cube": lambda self, x: self.w * (x.float() * torch.rsqrt(x.float().pow(3).mean(-1, keepdim=True) + 1e-3)),
    "epsilon outside the root": lambda self, x: (
        self.w * (x.float() / (x.float().pow(2).mean(-1, keepdim=True).sqrt() + 1e-3))
    ),
    "epsilon after the root": lambda self, x: (
        self.w * (x.float() * (torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True)) + 1e-3))
    ),
    "epsilon scaled": lambda self, x: (
        self.w * (x.float() * torch.rsqrt(torch.add(x.float().pow(2).mean(-1, keepdim=True), 1e-3, alpha=2)))
    ),
    "another axis": lambda self, x: self.w * _normal(x, axis=1),
    "two axes": lambda self, x: self.w * _normal(x, axis=(1, 2)),
    "a sum": lambda self, x: self.w * (x.float() * torch.rsqrt(x.float().pow(2).sum(-1, keepdim=True) + 1e-3)),
    "a root": lambda self, x: self.w * (x.float() * torch.sqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-3)),
    "the mean of another tensor": lambda self, x: (
        self.w * (x.float() * torch.rsqrt((x.float() + 1).pow(2).mean(-1, keepdim=True) + 1e-3))
    ),
    "epsilon per column": lambda self, x: (
        self.w * (x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + self.w.abs()))
    ),
    "a weight per row": lambda self, x: self.rows * _normal(x),
    "a single weight": lambda self, x: self.one * _normal(x),
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("function", NEAR_MISSES.values(), ids=NEAR_MISSES)
def test_what_is_one_detail_away_stays(function, rule):
    parameters = {**_weight(torch.float32), "rows": torch.randn(3, 1), "one": torch.randn(1)}
    check_misses(rule, FunctionModule(function, parameters), {"x": _x()})


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("name", FORMS)
def test_a_weight_that_is_computed_or_given_is_no_norms_weight(name, rule):
    class Self:
        pass

    def given(x, w):
        Self.w = w
        return FORMS[name](Self, x)

    check_misses(rule, given, {"x": _x(), "w": _x(torch.float32, WIDTH)})


def test_gemmas_form_with_another_number_than_one_stays():
    module = FunctionModule(lambda self, x: (_normal(x) * (2.0 + self.w.float())).to(x.dtype), _weight(torch.float16))
    check_misses(GEMMA_NORM, module, {"x": _x(torch.float16)})


def test_a_norm_rounded_on_the_other_side_is_not_taken_for_another():
    half = torch.float16
    for name, other in permutations(FORMS, 2):
        check_misses(RULES[other], FunctionModule(FORMS[name], _weight(half)), {"x": _x(half)})


def test_a_norm_that_ends_in_another_dtype_stays():
    wide_weight = FunctionModule(FORMS["llama"], _weight(torch.float32))
    check_misses(LLAMA_NORM, wide_weight, {"x": _x(torch.float16)})
    rounded_twice = FunctionModule(lambda self, x: self.w * _normal(x).bfloat16(), _weight(torch.bfloat16))
    check_misses(LLAMA_NORM, rounded_twice, {"x": _x(torch.float16)})


def test_a_norm_in_the_middle_of_a_model_is_found_beside_its_neighbours():
    def block(self, x):
        y = x + 1
        return y + torch.relu(FORMS["llama"](self, y)) * FORMS["llama"](self, x)

    module = FunctionModule(block, _weight(torch.float32))
    check_applies(LLAMA_NORM, module, {"x": _x()}, times=2)
    assert len(operators(captured(module, {"x": _x()}))) > 10
