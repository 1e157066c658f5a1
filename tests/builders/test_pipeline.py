"""A build writes down what it did."""

from __future__ import annotations

import pytest

from ditto.network import load, network_text


@pytest.mark.parametrize("name", ["vision", "llm"])
def test_the_network_is_saved_beside_its_engine_without_the_weights(llava_tree, name):
    folder = llava_tree.folder(name)
    network = load(folder / "network.json", folder / "network.safetensors")
    component = llava_tree.component(name)
    assert component.inputs == {name: str(spec) for name, spec in network.inputs.items()}
    assert sum(component.layers.values()) == len(network.nodes)
    assert (folder / "network.safetensors").stat().st_size < 50_000
    assert network_text(network)


def test_stages_are_recorded_with_seconds_and_memory(llava_tree):
    names = [stage["name"] for stage in llava_tree.manifest.stages]
    for wanted in ("export", "rewrite", "lower", "compile"):
        assert names.count(wanted) == 2
    assert all(stage["seconds"] >= 0 and stage["peak_bytes"] > 10**7 for stage in llava_tree.manifest.stages)


def test_profiles_are_recorded_for_every_dimension(llava_tree):
    component = llava_tree.component("llm")
    assert list(component.profiles) == ["prefill", "decode"]
    assert set(component.profiles["prefill"]) == {"batch", "sequence", "prompt_rows"}


def test_logits_are_float32_and_of_the_last_tokens_only(llava_tree):
    assert llava_tree.component("llm").outputs["logits"] == "float32[batch, 128]"
