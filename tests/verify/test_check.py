"""A sound tree passes, and planted faults are found: numbers, tokens, and the layer they are in."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
import torch
from attrs import evolve

from ditto import EngineTree, LlmBuilder
from ditto.builders.gguf import groups_of
from ditto.errors import ConfigError, TreeError
from ditto.runtime.reference import ReferenceSession
from ditto.runtime.session import LlmRunner
from ditto.verify.check import verify
from ditto.verify.inputs import mixed
from tests.support import gguf
from tests.support.faults import planted


def checked(pair, tree):
    return verify(tree, mixed(tree, 6), str(pair.checkpoint), "reference", 6)


@pytest.mark.parametrize("kind", ["llavas", "llamas"])
def test_a_sound_tree_passes(kind, request):
    pair = request.getfixturevalue(kind)
    result = checked(pair, pair.sound)
    assert result.passed
    assert [item.name for item in result.measures] == (["features", "logits"] if kind == "llavas" else ["logits"])
    assert all(item.relative_error < 1e-5 for item in result.measures)
    assert result.tokens > 8
    assert result.differences == result.divergences == ()
    assert result.compared == 0


@pytest.mark.parametrize("rounds", [True, False])
def test_a_session_whose_products_round_to_tf32_may_err_by_that(llamas, monkeypatch, rounds):
    monkeypatch.setattr(ReferenceSession, "rounds_to_tf32", rounds)
    result = checked(llamas, llamas.sound)
    assert {item.allowed for item in result.measures} == {2e-3 if rounds else 1e-5}
    assert ("rounds the operands of float32 products to TF32" in result.text()) == rounds
    assert result.to_json()["in_tf32"] == rounds


def in_module(nodes, end, kind):
    return next(node for node in nodes if node["module"].endswith(end) and node["layer"]["kind"] == kind)


def query_scale(nodes):
    """The literal that the queries of the first layer are multiplied by."""
    attention = in_module(nodes, "layers.0.self_attn", "Attention")
    made = {name: node for node in nodes for name in node["outputs"]}
    product = made[attention["inputs"][0]]
    (scale,) = (made[name] for name in product["inputs"] if made[name]["layer"]["kind"] == "Constant")
    return scale["layer"]["weight"]["literal"]


def tanh(nodes):
    node = in_module(nodes, "layers.1.mlp.act_fn", "Activation")
    node["layer"]["function"] = "TANH"


FAULTS = {
    "a norm's weight in layer 1": (
        "llavas",
        {"component": "llm", "tensor": "layers.1.input_layernorm.weight"},
        "layers.1.input_layernorm",
    ),
    "a projection's weight in layer 1": (
        "llavas",
        {"component": "llm", "tensor": "layers.1.mlp.down_proj.weight"},
        "layers.1.mlp.down_proj",
    ),
    "a key projection's weight, fused with others": (
        "llamas",
        {"component": "llm", "tensor": "layers.1.self_attn.k_proj.weight"},
        "layers.1.self_attn.k_proj",
    ),
    "an activation in layer 1": ("llamas", {"component": "llm", "node": tanh}, "layers.1.mlp.act_fn"),
    "the attention's scale": ("llamas", {"component": "llm", "literal": query_scale}, "layers.0.self_attn"),
    "the output embedding": ("llamas", {"component": "llm", "tensor": "lm_head.weight"}, "lm_head"),
    "a bias of the tower": ("llavas", {"component": "vision", "tensor": "layers.1.mlp.fc1.bias"}, "layers.1.mlp.fc1"),
    "the projector": (
        "llavas",
        {"component": "vision", "tensor": "projector.linear_2.weight"},
        "multi_modal_projector.linear_2",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_and_its_layer_named(name, request, tmp_path):
    kind, fault, module = FAULTS[name]
    pair = request.getfixturevalue(kind)
    tree = pair.broken(tmp_path / "tree", **fault)
    result = checked(pair, tree)
    assert not result.passed
    components = [fault["component"]] if fault["component"] == "vision" else ["llm", "decode"]
    assert [item.component for item in result.divergences] == components
    found = result.divergences[0]
    assert {item.module for item in result.divergences} == {found.module}
    assert found.module.endswith(module), found
    assert found.relative_error > 100 * found.allowed
    assert f"first diverging layer of {fault['component']}" in result.text()


def test_a_fault_of_the_network_that_decodes_is_found_there(tmp_path, llamas):
    builder = (
        LlmBuilder.from_pretrained(str(llamas.checkpoint))
        .with_optimize("latency")
        .with_tuning("9.0")
        .with_target("tensorrt-rtx")
    )
    built = builder.build(tmp_path / "tree")
    assert verify(built, mixed(built, 3), None, "reference", 3).passed
    tree = planted(built, "llm-decode", node=tanh)
    (found,) = verify(tree, mixed(tree, 3), None, "reference", 3).divergences
    assert found.component == "decode"
    assert found.module.endswith("layers.1.mlp.act_fn")


def test_a_fault_of_what_runs_the_networks_is_told_apart(llamas, monkeypatch):
    from ditto.runtime.reference import _ReferenceRunner

    step = _ReferenceRunner.step
    calls: list[int] = []

    def wrong(self: LlmRunner, turns, chosen):
        calls.append(0)
        return step(self, turns, chosen) * 1.001

    monkeypatch.setattr(_ReferenceRunner, "step", wrong)
    result = checked(llamas, llamas.sound)
    assert calls
    assert not result.passed
    assert result.differences == result.divergences == ()
    assert result.compared > 20
    assert "the networks match the model, the session that runs them does not" in result.text()


def test_the_layer_is_looked_for_with_a_prompt_that_shows_the_fault(llavas, tmp_path):
    tree = llavas.broken(tmp_path / "tree", component="vision", tensor="layers.1.mlp.fc1.bias")
    given = sorted(mixed(tree, 3), key=lambda prompt: len(prompt.items))
    assert not given[0].items and given[-1].items
    result = verify(tree, given, str(llavas.checkpoint), "reference", 3)
    assert [item.component for item in result.divergences] == ["vision"]


def test_a_prompt_that_ends_with_a_image_is_looked_at(llavas, tmp_path):
    tree = llavas.broken(tmp_path / "tree", component="llm", tensor="layers.0.mlp.up_proj.weight")
    whole = next(prompt for prompt in mixed(tree, 3) if prompt.items)
    last = (whole.ids[0] == tree.manifest.tokens.image).nonzero().max()
    result = verify(tree, [evolve(whole, ids=whole.ids[:, : last + 1])], str(llavas.checkpoint), "reference", 3)
    assert [item.component for item in result.divergences] == ["llm"]


def test_a_wrong_token_is_shown_with_its_gap(llamas, monkeypatch):
    answers = [(9, 9), (9, 9), (9, 9), (9, 9)]
    monkeypatch.setattr("ditto.verify.check.answers", lambda session, requests, count: answers)
    result = checked(llamas, llamas.sound)
    assert not result.passed
    first = result.differences[0]
    assert first.position == 1
    assert first.found == 9
    assert first.gap > 0
    assert not first.tie


def test_half_precision_is_held_to_hugging_faces_own_error(tmp_path, llamas):
    builder = LlmBuilder.from_pretrained(str(llamas.checkpoint)).with_dtype("float16").with_target("tensorrt-rtx")
    tree = builder.with_batch(2).build(tmp_path / "tree")
    result = verify(tree, mixed(tree, 4), None, "reference", 4)
    (logits,) = result.measures
    assert result.passed
    assert 1e-5 < logits.own_error < 1e-2
    assert logits.allowed == max(2e-3, 1.5 * logits.own_error)


def test_nothing_to_compare_is_refused(llamas):
    with pytest.raises(ConfigError, match="nothing to compare"):
        verify(llamas.sound, [], str(llamas.checkpoint), "reference")


def test_a_tree_from_memory_needs_a_name(llamas):
    with pytest.raises(TreeError, match="built from a model in memory"):
        verify(llamas.sound, mixed(llamas.sound, 2), None, "reference")


def test_the_decoder_answers_for_itself(llavas, tmp_path):
    """A fault of the tower does not show in the decoder's layers."""
    tree = llavas.broken(tmp_path / "tree", component="vision", tensor="layers.0.mlp.fc1.bias")
    result = checked(llavas, tree)
    assert [item.component for item in result.divergences] == ["vision"]
    assert torch.tensor([item.relative_error for item in result.measures]).min() > 1e-5


def test_generation_defaults_are_left_out_on_both_sides_and_named(llamas, tmp_path):
    """Neither a tree nor a model that honours them makes a comparison pass or fail."""
    checkpoint = shutil.copytree(llamas.checkpoint, tmp_path / "checkpoint")
    own = json.loads((checkpoint / "generation_config.json").read_text())
    penalties = {"repetition_penalty": 9.0, "no_repeat_ngram_size": 1}
    (checkpoint / "generation_config.json").write_text(json.dumps({**own, **penalties}))
    sound = llamas.sound
    tree = EngineTree(sound.root, evolve(sound.manifest, generation=penalties))
    plain, result = (
        verify(each, mixed(each, 6), str(model), "reference", 6)
        for each, model in ((sound, llamas.checkpoint), (tree, checkpoint))
    )
    assert result.passed
    assert result.tokens == plain.tokens
    assert result.left_out == ("no_repeat_ngram_size", "repetition_penalty")
    assert "without the model's generation defaults: no_repeat_ngram_size, repetition_penalty" in result.text()
    assert plain.left_out == ()
    assert "generation defaults" not in plain.text()


def test_a_gguf_file_is_held_to_what_transformers_reads_from_it(tmp_path, monkeypatch):
    file = gguf.write(tmp_path / "tiny.gguf", "Q4_1")
    builder = LlmBuilder.from_pretrained(str(file)).with_target("tensorrt-rtx").with_dtype("float32")
    tree = builder.with_max_seq_len(32).build(tmp_path / "tree")
    prompts = mixed(tree, 4)
    assert verify(tree, prompts, new_tokens=4).passed

    def mixed_up(*given: Any) -> Any:
        groups = groups_of(*given)
        gate, up = (f"model.layers.0.mlp.{name}_proj.weight" for name in ("gate", "up"))
        return {**groups, gate: groups[up], up: groups[gate]}

    monkeypatch.setattr("ditto.builders.source.groups_of", mixed_up)
    builder = LlmBuilder.from_pretrained(str(file)).with_target("tensorrt-rtx").with_dtype("float32")
    tree = builder.with_max_seq_len(32).build(tmp_path / "mixed-up")
    assert not verify(tree, prompts, new_tokens=4).passed
