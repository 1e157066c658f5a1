"""Every form computes the product or attention that it is a form of, and compiles; Ditto's are Ditto's."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from attrs import evolve
from torch.nn import functional as F

from benchmarks.described import llava_7b
from benchmarks.forms import PROMPT, attention, blocks_of, cases, product
from tests.support.forms import CPU, check_compiles, check_computes, check_differ, described, kernels


def small(dtype):
    """Wide and with bias, narrow, and attention of both kinds: among them they have all forms."""
    return [
        product("vision", "wide", 1, "as it is", 6144, 32, rows=5, bias=True, dtype=dtype),
        product("prefill", "narrow", 1, "rows", 48, 64, rows=6, dtype=dtype),
        attention("vision", 1, "joint", 2, 8, rows=5, causal=False, dtype=dtype),
        attention("prefill", 1, "heads", 2, 8, rows=6, causal=True, dtype=dtype),
    ]


def wanted(case, drawn):
    """What PyTorch makes, said here once more."""
    if case.name != "attention":
        return F.linear(drawn["x"], drawn["weight"], drawn["bias"] if case.name == "wide" else None)
    scores = drawn["query"] @ drawn["key"].mT
    if case.task == "prefill":
        scores = scores.masked_fill(torch.ones(6, 6).triu(1).bool(), float("-inf"))
    return scores.softmax(-1) @ drawn["value"]


SMALL = [(index, form) for index, case in enumerate(small(torch.float16)) for form in case.forms]
IDS = [f"{small(torch.float16)[index].name}{index}-{form}" for index, form in SMALL]


@pytest.mark.parametrize(("index", "name"), SMALL, ids=IDS)
def test_every_form_computes_what_torch_computes(index, name):
    check_computes(small(torch.float32)[index], name, wanted)


@pytest.mark.parametrize(("index", "name"), SMALL, ids=IDS)
def test_every_form_compiles(index, name, tmp_path):
    check_compiles(small(torch.float16)[index], name, tmp_path)


def test_forms_differ_in_what_they_are_given_and_give():
    check_differ(small(torch.float16))


def test_matrices_are_inputs_and_queries_come_scaled():
    for case in small(torch.float32):
        drawn = case.draw(3, CPU)
        for form in case.forms.values():
            assert bool(form.matrices) == ("weight" in drawn)
            assert not any("weight" in str(constant.weight) for constant in form.network.constants())
        scaled = drawn["weight"].std() * 8 if case.name == "narrow" else None
        assert scaled is None or 0.9 < scaled < 1.1


def test_blocks_are_as_many_as_fit():
    assert [blocks_of(22016, width) for width in (4096, 2048, 1024, 512)] == [4, 8, 16, 43]
    assert [blocks_of(1024, width) for width in (4096, 512)] == [1, 2]


def test_dittos_forms_are_in_its_networks_as_often_as_said():
    source = llava_7b()
    source.config.vision_config.num_hidden_layers, source.config.text_config.num_hidden_layers = 4, 3
    sizes = {"batch": 4, "sequence": PROMPT, "prompt_rows": 1}
    networks = {
        task: Counter(kernels(network, sizes)) for task, network in described(source).items() if task != "decode"
    }
    said = cases(source.config)
    for case in said:
        own = {name: size.max for name, size in case.profile(4).ranges.items()}
        (kernel,) = kernels(case.forms[case.used].network, own)
        assert networks[case.task][kernel] == case.times, (case.task, case.name)
    assert [case.times for case in said] == [3, 3, 3, 3, 3, 1, 1, 3, 3, 2, 2, 2]


def test_sizes_are_llava_7bs():
    said = {(case.task, case.name): case for case in cases(llava_7b().config)}
    assert {case.times for (task, name), case in said.items() if task == "vision" and "linear" not in name} == {23}
    assert {name: case.times for (task, name), case in said.items() if task == "prefill"} == {
        "query/key/value": 32,
        "attention": 32,
        "output": 31,
        "gate/up": 31,
        "down": 31,
    }
    down = evolve(said["prefill", "down"], forms={})
    assert (down.rows, down.flops) == (640, 2 * 640 * 4096 * 11008)
