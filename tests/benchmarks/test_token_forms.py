"""Every form computes the product or attention that it is a form of, and compiles; Ditto's are Ditto's."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from benchmarks import token_forms
from benchmarks.described import llava_7b
from benchmarks.forms import Held
from benchmarks.gpu_limits import compiled
from benchmarks.token_forms import CACHED, cases
from ditto import LlavaModel, LlmBuilder
from ditto.bindings import load_native
from ditto.builders.pipeline import describe_all
from ditto.reference import TOLERANCE, Constants, run
from ditto.targets.tensorrt import products
from tests.benchmarks.test_forms import kernels

CPU = torch.device("cpu")


def small(dtype):
    """A product with parts of every number, and attention."""
    return [token_forms.product("output", 1, 48, 64, dtype=dtype), token_forms.attention(1, 2, 8, dtype=dtype)]


def wanted(case, drawn):
    """What PyTorch makes, said here once more."""
    if case.name != "attention":
        return drawn["x"] @ drawn["weight"].T
    scores = (drawn["query"] @ drawn["key"].mT)[..., : CACHED + 1]
    return scores.softmax(-1) @ drawn["value"][:, :, : CACHED + 1]


SMALL = [(index, form) for index, case in enumerate(small(torch.float16)) for form in case.forms]
IDS = [f"{small(torch.float16)[index].name}-{form}" for index, form in SMALL]


@pytest.mark.parametrize(("index", "name"), SMALL, ids=IDS)
def test_every_form_computes_what_torch_computes(index, name):
    torch.manual_seed(3)
    case = small(torch.float32)[index]
    form, drawn = case.forms[name], case.draw(2, CPU)
    made = run(form.network, form.inputs(drawn), Constants(form.network, Held(drawn)))["made"]
    close = TOLERANCE[torch.float32]
    for found in (form.seen(made, drawn), case.by_torch(drawn)):
        torch.testing.assert_close(found, wanted(case, drawn), rtol=close["rtol"], atol=close["atol"])


@pytest.mark.parametrize(("index", "name"), SMALL, ids=IDS)
def test_every_form_compiles(index, name, tmp_path):
    case = small(torch.float16)[index]
    path, source = tmp_path / "form.engine", Held(case.draw(2, CPU))
    size = compiled(case.forms[name].network, source, case.profile(2), load_native("tensorrt_rtx"), path)
    assert size == path.stat().st_size > 0


def test_weights_and_caches_come_from_memory():
    for case in small(torch.float16):
        drawn, other = case.draw(1, CPU), case.draw(1, CPU)
        for form in case.forms.values():
            cold = form.cold(other)
            assert {*cold} >= ({"key", "value"} if case.name == "attention" else {*form.matrices})
            assert {*form.inputs(drawn), *cold} == {*form.network.inputs}


def test_forms_differ_in_what_they_are_given_and_give():
    for case in small(torch.float16):
        networks = [
            ([*form.network.inputs.values()], [(node.layer, node.inputs) for node in form.network.nodes])
            for form in case.forms.values()
        ]
        for index, network in enumerate(networks):
            assert network not in networks[:index], [*case.forms][index]


def decode_of(source):
    """Ditto's network of single tokens."""
    common = {"source": source, "target": "tensorrt-rtx", "max_batch_size": 4}
    builder = LlmBuilder(**common, prompt_rows=LlavaModel.tokens_per_image(source.config)).with_weights("outside")
    networks = describe_all(builder.job(builder.resolved_target()))
    return next(network for name, (_, network) in networks.items() if "decode" in str(name))


def test_dittos_forms_are_in_its_network_as_often_as_said():
    source = llava_7b()
    source.config.text_config.num_hidden_layers = 3
    sizes = {"batch": 4, "sequence": 1, "prompt_rows": 1, token_forms.LIVE: token_forms.SLOTS}
    found = Counter(kernels(decode_of(source), sizes))
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
    monkeypatch.setattr(products, "_SHORTEST_PART", 1 << 20)
    assert token_forms.product("output", 1, 64, 64).used == "as it is"
