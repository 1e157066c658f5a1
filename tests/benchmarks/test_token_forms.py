"""Every form computes the product or attention that it is a form of, and compiles; Ditto's are Ditto's."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from attrs import evolve

from benchmarks import token_forms
from benchmarks.described import llava_7b
from benchmarks.token_forms import CACHED, cases
from ditto.targets.tensorrt.tuning import H200
from tests.support.forms import CPU, check_compiles, check_computes, check_differ, described, kernels


def small(dtype):
    """A product with parts of every number, and attention."""
    return [
        token_forms.product("output", 1, 48, 64, dtype=dtype),
        token_forms.attention(1, 2, 8, dtype=dtype),
        token_forms.attention(1, 4, 8, dtype, kv_heads=2),
    ]


def wanted(case, drawn):
    """What PyTorch makes, said here once more."""
    if case.name != "attention":
        return drawn["x"] @ drawn["weight"].T
    group = drawn["query"].shape[1] // drawn["key"].shape[1]
    keys, values = (drawn[name].repeat_interleave(group, 1)[:, :, : CACHED + 1] for name in ("key", "value"))
    return (drawn["query"] @ keys.mT).softmax(-1) @ values


SMALL = [(index, form) for index, case in enumerate(small(torch.float16)) for form in case.forms]
IDS = [f"{small(torch.float16)[index].name}-{index}-{form}" for index, form in SMALL]


@pytest.mark.parametrize(("index", "name"), SMALL, ids=IDS)
def test_every_form_computes_what_torch_computes(index, name):
    check_computes(small(torch.float32)[index], name, wanted)


@pytest.mark.parametrize(("index", "name"), SMALL, ids=IDS)
def test_every_form_compiles(index, name, tmp_path):
    check_compiles(small(torch.float16)[index], name, tmp_path)


def test_forms_differ_in_what_they_are_given_and_give():
    check_differ(small(torch.float16))


def test_weights_and_caches_come_from_memory():
    for case in small(torch.float16):
        drawn, other = case.draw(1, CPU), case.draw(1, CPU)
        for form in case.forms.values():
            cold = form.cold(other)
            assert {*cold} >= ({"key", "value"} if case.name == "attention" else {*form.matrices})
            assert {*form.inputs(drawn), *cold} == {*form.network.inputs}


def test_dittos_forms_are_in_its_network_as_often_as_said():
    source = llava_7b()
    source.config.vision_config.num_hidden_layers, source.config.text_config.num_hidden_layers = 4, 3
    sizes = {"batch": 4, "sequence": 1, "prompt_rows": 1, token_forms.KV_LENGTH: token_forms.SLOTS}
    found = Counter(kernels(described(source)["decode"], sizes))
    for case in cases(source.config):
        own = {name: size.max for name, size in case.profile(4).ranges.items()}
        for kernel in kernels(case.forms[case.used].network, own):
            assert found[kernel] == case.times, case.name
    assert sum(found.values()) == 4 * 3 + 1


def test_sizes_are_llava_7bs(monkeypatch):
    said = {case.name: case for case in cases(llava_7b().config)}
    assert {name: case.times for name, case in said.items()} == {
        "query/key/value": 32,
        "attention": 32,
        "output": 32,
        "gate/up": 32,
        "down": 32,
        "head": 1,
    }
    assert said["down"].flops == 2 * 4096 * 11008 and said["down"].rows == 1
    assert [case.used for case in said.values()] == ["2 parts", "sums", "4 parts", "2 parts", "4 parts", "2 parts"]
    monkeypatch.setattr(token_forms, "H200", evolve(H200, split_k_shortest=1 << 20))
    assert token_forms.product("output", 1, 64, 64).used == "as it is"
