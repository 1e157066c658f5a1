"""Weights that an engine takes as inputs are found again, exactly as the checkpoint has them."""

from __future__ import annotations

import shutil

import pytest
import torch
from attrs import evolve
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from ditto import LlavaModel, LlmBuilder
from ditto.engine import EngineTree
from ditto.errors import TreeError
from ditto.network.spec import FLOATING
from ditto.runtime import Request, generate, open_session
from ditto.runtime.memory import engine_bytes
from ditto.runtime.weights import bound_weights, network_of
from tests.support.greedy import greedy
from tests.support.models import llama
from tests.support.texts import packed_tree


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A checkpoint and the tree built from it."""
    work = tmp_path_factory.mktemp("external")
    llama(hidden_size=128, intermediate_size=256).save_pretrained(work / "model")
    builder = (
        LlmBuilder.from_pretrained(str(work / "model"))
        .with_target("tensorrt-rtx")
        .with_optimize("latency")
        .with_tuning("9.0")
    )
    return work / "model", builder.build(work / "tree")


@pytest.fixture
def copied(built, tmp_path):
    """The same, free to be changed."""
    model, tree = built
    shutil.copytree(model, tmp_path / "model")
    shutil.copytree(tree.root, tmp_path / "tree")
    tree = EngineTree.open(tmp_path / "tree")
    checkpoint = evolve(tree.manifest.checkpoint, directory=str(tmp_path / "model"))
    return tmp_path / "model", EngineTree(tree.root, evolve(tree.manifest, checkpoint=checkpoint))


def test_every_weight_is_the_checkpoints(built):
    model, tree = built
    tensors = load_file(model / "model.safetensors")
    joined = {"{q_proj,k_proj,v_proj}": ("q_proj", "k_proj", "v_proj"), "{gate_proj,up_proj}": ("gate_proj", "up_proj")}
    found = dict(bound_weights(tree, "llm"))
    assert len(found) >= 2 * 4
    for name, tensor in found.items():
        together = next((part for part in joined if part in name), None)
        names = [name.replace(together, part) for part in joined[together]] if together else [name]
        wanted = torch.cat([tensors[part] for part in names])
        assert_close(tensor.squeeze(), wanted, rtol=0, atol=0)


@pytest.mark.parametrize("place", ["embedded", "external"])
def test_a_model_in_memory_answers_from_the_weights_that_its_tree_keeps(place, tmp_path):
    model = llama()
    tree = LlmBuilder.from_model(model).with_target("tensorrt-rtx").with_weights(place).build(tmp_path / "tree")
    session = open_session(tree, "reference")
    for ids in ([5, 9, 17, 44], [100, 3]):
        (answer,) = generate(session, [Request(tuple(ids))], 6)
        assert answer.ids == greedy(model, ids, 6)


def test_engines_are_smaller_by_the_weights_that_are_outside(tmp_path):
    builder = LlmBuilder.from_model(llama(hidden_size=256, vocab_size=32768)).with_target("tensorrt-rtx")
    trees = {place: builder.with_weights(place).build(tmp_path / place) for place in ("embedded", "external")}
    saved = sum(tensor.nbytes for _, tensor in bound_weights(trees["external"], "llm"))
    sizes = {place: engine_bytes(tree, "llm") for place, tree in trees.items()}
    assert saved > 2 * 256 * 32768 * 4
    assert sizes["embedded"] - sizes["external"] > 0.9 * saved
    assert dict(bound_weights(trees["embedded"], "llm")) == {}


def test_weights_come_where_they_are_wanted(built):
    _, tree = built
    assert all(tensor.is_meta for _, tensor in bound_weights(tree, "llm", torch.device("meta")))


def test_what_is_held_already_is_not_loaded_again(built):
    _, tree = built
    held = {}
    prompts, steps = (dict(bound_weights(tree, name, held=held)) for name in ("llm", "llm-decode"))
    assert all(any(tensor is kept for kept in held.values()) for tensor in (*prompts.values(), *steps.values()))
    common = [name for name in steps if any(tensor is steps[name] for tensor in prompts.values())]
    assert any("down_proj" in name for name in common) and any("q_proj" in name for name in common)
    alone = dict(bound_weights(tree, "llm-decode"))
    assert alone.keys() == steps.keys()
    for name, tensor in alone.items():
        assert_close(steps[name], tensor, rtol=0, atol=0)


def test_what_is_stored_as_it_is_used_is_not_copied(built):
    _, tree = built
    views = [(name, tensor) for name, tensor in bound_weights(tree, "llm") if "{" not in name]
    starts = sorted(tensor.data_ptr() for _, tensor in views)
    size = (built[0] / "model.safetensors").stat().st_size
    assert views
    assert starts[-1] - starts[0] < size


def test_the_reference_session_runs_a_tree_with_weights_outside(built, tmp_path):
    _, tree = built
    requests = [Request((5, 6, 7))]
    inside = LlmBuilder.from_model(llama(hidden_size=128, intermediate_size=256)).with_target("tensorrt-rtx")
    wanted = generate(open_session(inside.build(tmp_path / "embedded"), "reference"), requests, 4)
    assert generate(open_session(tree, "reference"), requests, 4) == wanted


def test_a_changed_checkpoint_is_refused(copied):
    model, tree = copied
    assert list(bound_weights(tree, "llm"))
    tensors = load_file(model / "model.safetensors")
    tensors["model.layers.0.mlp.down_proj.weight"][0, 0] += 1
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TreeError, match="the checkpoint has changed since the tree was built from it"):
        list(bound_weights(tree, "llm"))


def test_an_input_that_the_network_does_not_know_is_named(copied):
    _, tree = copied
    component = evolve(tree.component("llm"), external_weights={"some.weight": "nothing.0"})
    changed = EngineTree(tree.root, evolve(tree.manifest, components={"llm": component}))
    with pytest.raises(TreeError, match=r"accepts some\.weight as an input, which its network does not have"):
        list(bound_weights(changed, "llm"))


def test_weights_of_a_model_in_memory_come_from_the_tree(tmp_path):
    model = llama(hidden_size=128, intermediate_size=256)
    tree = (
        LlmBuilder.from_model(model)
        .with_target("tensorrt-rtx")
        .with_optimize("latency")
        .with_tuning("9.0")
        .build(tmp_path / "tree")
    )
    found = dict(bound_weights(tree, "llm"))
    name = "model.layers.1.mlp.down_proj.weight"
    assert_close(found[name].squeeze(), model.get_parameter(name).detach(), rtol=0, atol=0)


def test_both_engines_of_the_bundled_model_take_their_weights_as_inputs(shapes_checkpoint, tmp_path):
    family = (
        LlavaModel.from_pretrained(str(shapes_checkpoint))
        .with_target("tensorrt-rtx")
        .with_optimize("latency")
        .with_tuning("9.0")
    )
    tree = family.build_all(tmp_path / "tree")
    tensors = load_file(shapes_checkpoint / "model.safetensors")
    for name in ("vision", "llm"):
        assert tree.manifest.settings[name]["weights"] == "external"
        found = dict(bound_weights(tree, name))
        assert found
        for stored in found.keys() & tensors.keys():
            halves = (found[stored], found.get(f"{stored}#2", found[stored][..., :0]))  # of a bias there are two
            whole = tensors[stored].half().flatten()
            mine = torch.cat([half.flatten() for half in halves[: 1 if halves[0].numel() == whole.numel() else 2]])
            assert_close(mine, whole, rtol=0, atol=0)


def test_a_text_model_of_packed_tokens_opens_although_no_input_is_floating(tmp_path):
    tree = packed_tree(llama(), tmp_path / "tree")
    assert all(spec.dtype not in FLOATING for spec in network_of(tree, "llm").inputs.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("target", ["tensorrt-rtx", "trtllm"])
def test_a_manifest_that_states_another_dtype_is_refused(target, dtype, tmp_path):
    """Also of packed tokens, whose inputs are all integers."""
    name = str(dtype).removeprefix("torch.")
    tree = LlmBuilder.from_model(llama()).with_dtype(dtype).with_target(target).build(tmp_path / "tree")
    assert tree.component("llm").spec.dtype == name and network_of(tree, "llm")
    for other in {"float32", "float16", "bfloat16"} - {name}:
        component = tree.component("llm")
        component = evolve(component, spec=evolve(component.spec, dtype=other))
        changed = EngineTree(tree.root, evolve(tree.manifest, components={"llm": component}))
        with pytest.raises(TreeError, match="the manifest and network.json differ in the dtype of llm"):
            network_of(changed, "llm")
