"""The stand-in for TensorRT 10.9 takes good networks and refuses what TensorRT would refuse."""

from __future__ import annotations

import pytest
import torch
from attrs import evolve

from ditto.errors import BuildError
from ditto.network import Network, Spec, symbol
from ditto.network.layers import Attention, Cast, ElementWise, Normalization, Shuffle
from ditto.network.plugin import PluginField
from tests.support.conformance import VERSIONS
from tests.support.conformance.sample import ATTENTION_INPUTS, PROFILES, attention, gemm, llm_network, vision_network
from tests.support.layers import network_of
from tests.support.recorder import compiled, recorded, recording_tensorrt

HALF, INT = torch.float16, torch.int32


@pytest.mark.parametrize("version", VERSIONS)
def test_a_good_network_is_recorded_whole(version):
    network = llm_network(is_old=version == "0.18.2")
    definition = recorded(network, version)
    assert [tensor.name for tensor in definition.inputs] == list(network.inputs)
    assert [(tensor.name, tensor.dtype.name, tensor.shape) for tensor in definition.outputs] == [
        ("logits", "FLOAT", (-1, 40))
    ]
    plugins = [layer.settings["plugin"].made for layer in definition.layers if layer.kind == "plugin_v2"]
    assert [plugin.name for plugin in plugins] == ["gemm", "causal_attn", "gemm", "causal_attn", "gemm"]
    assert [plugins[index].fields["layer_idx"].values for index in (1, 3)] == [(0,), (1,)]


def test_a_vision_network_is_recorded_with_its_shapes():
    assert recorded(vision_network(), "0.19.0").outputs[0].shape == (-1, 6, 32)


def test_compilation_hands_over_one_profile(tmp_path):
    definition, config = compiled(llm_network(), PROFILES, "0.19.0", tmp_path / "engine")
    (profile,) = config.profiles
    assert profile.shapes["cache_indirection"] == ((1, 1, 1), (2, 1, 32), (4, 1, 64))
    assert definition.outputs[0].name == "logits"
    assert (tmp_path / "engine").read_text().startswith("recorded: ")


def _attention_network(plugin, names=ATTENTION_INPUTS) -> Network:
    """One attention plugin, its inputs straight from the network's but for rope's."""
    from tests.support.conformance.sample import llm_inputs

    net = Network("test")
    specs = llm_inputs()
    for name, spec in specs.items():
        net.input(name, spec)
    tables = {"rotary_inv_freq": (4,), "rotary_cos_sin": (1, 512)}
    for name, shape in tables.items():
        net.input(name, Spec(shape, torch.float32))
    qkv = net.input("qkv", Spec((symbol("num_tokens"), 64), HALF))
    net.output("y", net.add(plugin, qkv, *(net.value(name) for name in names)))
    return net


def _fields(plugin, change):
    return evolve(plugin, stated=tuple(change(list(plugin.stated))))


REFUSED = {
    "an unknown creator": (lambda p: evolve(p, creator="FlashAttention"), "the plugin library has no FlashAttention"),
    "another version": (lambda p: evolve(p, version="2"), "has no GPTAttention, version 2"),
    "another namespace": (lambda p: evolve(p, namespace=""), "has no GPTAttention, version 1, in any namespace"),
    "a missing field": (lambda p: _fields(p, lambda known: known[1:]), "refuses the fields of GPTAttention"),
    "an unknown field": (
        lambda p: _fields(p, lambda known: [*known, PluginField("causal", "int8", (1,))]),
        "refuses the fields of GPTAttention",
    ),
    "a wide field": (lambda p: p.with_field("mask_type", type="int8"), "refuses the fields of GPTAttention"),
    "a long field": (lambda p: p.with_field("layer_idx", values=(0, 1)), "refuses the fields of GPTAttention"),
    "fields that ask for another input": (
        lambda p: p.with_field("use_fp8_context_fmha", values=(1,)),
        "takes 18 inputs under these fields, not 17",
    ),
    "fields of another dtype": (lambda p: p.with_field("type_id", values=(7,)), "takes qkv as bfloat16, not HALF"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_plugins_that_the_library_would_refuse(name):
    change, message = REFUSED[name]
    with pytest.raises(BuildError, match=message):
        recorded(_attention_network(change(attention())), "0.19.0")


def test_the_fields_of_another_version_are_refused():
    with pytest.raises(BuildError, match="refuses the fields"):
        recorded(_attention_network(attention(is_old=True)), "0.19.0")
    with pytest.raises(BuildError, match="refuses the fields"):
        recorded(_attention_network(attention()), "0.18.2")


def test_a_creator_says_what_it_misses():
    trt = recording_tensorrt("0.19.0").module
    creator = trt.get_plugin_registry().get_plugin_creator("Gemm", "1", "tensorrt_llm")
    assert creator.create_plugin("gemm", []) is None
    assert trt.refusals == ["Gemm misses field transa"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (ATTENTION_INPUTS[:-1], "takes 17 inputs under these fields, not 16"),
        ((*ATTENTION_INPUTS[:-1], "host_context_lengths"), "takes host_context_progress as int64, not INT32"),
    ],
)
def test_inputs_that_the_plugin_would_refuse(names, message):
    with pytest.raises(BuildError, match=message):
        recorded(_attention_network(attention(), names), "0.19.0")


def test_a_host_input_that_a_layer_wrote():
    network = _attention_network(attention())
    place = len(network.nodes) - 1
    copied = network.add(ElementWise("SUM"), *[network.value("host_sink_token_length")] * 2)
    node = network.nodes.pop(place)
    names = tuple(copied.name if name == "host_sink_token_length" else name for name in node.inputs)
    network.nodes.append(evolve(node, inputs=names))
    with pytest.raises(BuildError, match="reads host_sink_token_length on the host, where no layer writes"):
        recorded(network, "0.19.0")


def test_layers_that_tensorrt_10_9_has_not():
    heads = Spec((symbol("batch"), 2, 4, 8), HALF)
    with pytest.raises(AttributeError, match="TensorRT 10.9's network has no add_attention"):
        recorded(network_of(Attention(causal=True), [heads] * 3), "0.19.0")


def test_layer_norm_is_there_in_the_form_that_10_9_has():
    rows = Spec((symbol("batch"), 8), HALF)
    definition = recorded(network_of(Normalization((1,), 1e-3), [rows, *[Spec((1, 8), HALF)] * 2]), "0.19.0")
    (layer,) = definition.layers
    assert (layer.kind, layer.settings["axes"], layer.settings["epsilon"]) == ("normalization", 2, 1e-3)


def test_a_misspelt_setting_is_refused():
    trt = recording_tensorrt("0.19.0").module
    definition = trt.Builder(None).create_network(2)
    layer = definition.add_shuffle(definition.add_input("x", trt.DataType.HALF, (2, 3)))
    with pytest.raises(AttributeError, match="a shuffle layer of TensorRT has no reshape"):
        layer.reshape = (3, 2)


class _Wrong(ElementWise):
    """A sum whose shape rule lets different dtypes pass."""

    def infer(self, x, y):
        return x


def test_types_and_shapes_are_judged_by_the_recorder_itself():
    with pytest.raises(BuildError, match="elementwise SUM needs equal types, has HALF, INT32"):
        recorded(network_of(_Wrong("SUM"), [Spec((2,), HALF), Spec((2,), INT)]), "0.19.0")
    network = network_of(Shuffle(reshape=(3, 2)), [Spec((2, 3), HALF)])
    (node,) = network.nodes
    network.nodes[0] = evolve(node, layer=_Reshaped(reshape=(4, 2)))
    with pytest.raises(BuildError, match="cannot infer the shape"):
        recorded(network, "0.19.0")


class _Reshaped(Shuffle):
    """A reshape to another number of elements."""

    def infer(self, x):
        return Spec((3, 2), HALF)


@pytest.mark.parametrize(
    ("profiles", "message"),
    [
        ({}, "a network with dynamic inputs needs an optimisation profile"),
        ({"a": {"n": [1, 2, 4]}}, None),
    ],
)
def test_profiles_are_judged_when_the_engine_is_built(tmp_path, profiles, message):
    network = network_of(Cast(torch.float32), [Spec((symbol("n"), 3), HALF)])
    if message is None:
        compiled(network, profiles, "0.19.0", tmp_path / "engine")
    else:
        with pytest.raises(BuildError, match=message):
            compiled(network, profiles, "0.19.0", tmp_path / "engine")


def test_gemm_takes_a_weight_of_its_own_dtype():
    rows, weight = Spec((symbol("num_tokens"), 32), HALF), Spec((64, 32), torch.float32)
    with pytest.raises(BuildError, match="Gemm takes weight as float16, not FLOAT"):
        recorded(network_of(gemm("num_tokens", 64), [rows, weight]), "0.19.0")
