"""A build writes down what it did."""

from __future__ import annotations

import pytest

from ditto import LlmBuilder
from ditto.engine import Phase
from ditto.network import load, network_text
from ditto.network.schedule import load_schedule
from tests.support.describing import engine_of
from tests.support.models import llama


@pytest.mark.parametrize("name", ["vision", "llm"])
def test_the_network_is_saved_beside_its_engine_without_the_weights(llava_tree, name):
    directory = llava_tree.directory(name)
    network = load(directory / "network.json", directory / "network.safetensors")
    component = llava_tree.component(name)
    assert component.inputs == {name: str(spec) for name, spec in network.inputs.items()}
    assert sum(component.layers.values()) == len(network.nodes)
    assert (directory / "network.safetensors").stat().st_size < 50_000
    assert network_text(network)


def test_stages_are_recorded_with_seconds_and_memory(llava_tree):
    names = [stage["name"] for stage in llava_tree.manifest.stages]
    for wanted in ("export", "rewrite", "lower", "compile"):
        assert names.count(wanted) == 2
    assert all(stage["seconds"] >= 0 and stage["peak_bytes"] > 10**7 for stage in llava_tree.manifest.stages)


def test_profiles_are_recorded_for_every_dimension(llava_tree):
    component = llava_tree.component("llm")
    assert [profile.phase for profile in component.spec.profiles] == [Phase.PREFILL, Phase.DECODE]
    assert set(component.spec.profiles[0].ranges) == {"batch", "sequence", "prompt_rows"}


def test_logits_are_float32_and_of_the_last_tokens_only(llava_tree):
    assert llava_tree.component("llm").outputs["logits"] == "float32[batch, 128]"


def test_with_weights_outside_each_part_has_an_engine_and_calls_say_how_they_follow(tmp_path):
    builder = (
        LlmBuilder.from_model(llama(num_hidden_layers=4))
        .with_target("tensorrt-rtx")
        .with_optimize("latency")
        .with_tuning("9.0")
    )
    tree = builder.build(tmp_path / "tree")
    prompts, steps = [0, 1, 2, 1, 2, 1, 2, 3, 4], [0, 1, 1, 1, 1, 2]
    for name, order in (("llm", prompts), ("llm-decode", steps)):
        component, directory = tree.component(name), tree.directory(name)
        parts = (f"rank0.part{number}.engine" for number in range(1, order[-1] + 1))
        assert component.engine_files == ["rank0.engine", *parts]
        assert all((directory / file).stat().st_size > 1000 for file in component.engine_files)
        calls = load_schedule(directory / "schedule.json")
        assert [call.part for call in calls.calls] == order
        tensors = {tensor for call in calls.calls for tensor in call.tensors.values()}
        assert tensors == {*component.inputs, *component.outputs, *component.external_weights, *calls.between}
        assert not component.external_weights.keys() & calls.between.keys()


def test_with_weights_inside_each_block_has_an_engine_with_its_own(tmp_path):
    builder = LlmBuilder.from_model(llama(num_hidden_layers=4)).with_target("tensorrt-rtx")
    tree = builder.build(tmp_path / "tree")
    component, directory = tree.component("llm"), tree.directory("llm")
    assert component.engine_files == ["rank0.engine", *(f"rank0.part{number}.engine" for number in range(1, 5))]
    assert not component.external_weights
    calls = load_schedule(directory / "schedule.json")
    assert [call.part for call in calls.calls] == list(range(5))
    tensors = {tensor for call in calls.calls for tensor in call.tensors.values()}
    assert tensors == {*component.inputs, *component.outputs, *calls.between}
    blocks = [(directory / file).stat().st_size for file in component.engine_files[1:4]]
    assert max(blocks) < 1.01 * min(blocks)


def test_a_tree_for_tensorrt_llm_has_whole_networks_and_no_calls(tmp_path):
    builder = LlmBuilder.from_model(llama(num_hidden_layers=4)).with_target("trtllm")
    assert not list(builder.build(tmp_path / "tree").root.rglob("schedule.json"))
    engine = engine_of(builder)
    assert builder.resolved_target().partition(engine.network, engine.spec).networks == (engine.network,)
