"""A plan says what a build then makes; what cannot be built is named with every place."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch import nn

from ditto import LlavaModel, LlmBuilder
from ditto.builders import preflight
from ditto.builders.plan import plan
from ditto.errors import InsufficientResourcesError
from tests.support.models import llama, llava
from tests.support.optimizing import by_weights


@pytest.fixture(scope="module")
def family(shapes_checkpoint):
    return LlavaModel.from_pretrained(str(shapes_checkpoint)).with_target("tensorrt-rtx").with_batch(2)


@pytest.fixture(scope="module")
def planned(family):
    return plan(family.builders)


def test_what_is_planned_is_what_is_built(planned, shapes_tree):
    check_plan(planned, shapes_tree)


def test_what_is_planned_with_external_weights_is_what_is_built(family, tmp_path):
    family = by_weights(family, "external")
    check_plan(plan(family.builders), family.build_all(tmp_path / "tree"))


def check_plan(made, tree):
    """Compare a plan with the tree of the same builders."""
    for name, component in tree.manifest.components.items():
        engine = made.engines[name]
        for field in ("spec", "inputs", "outputs", "layers"):
            assert getattr(engine, field) == getattr(component, field)
        size = sum(tree.manifest.files[f"{component.directory}/{file}"].bytes for file in component.engine_files)
        assert 0.3 * engine.engine < size <= engine.engine
    assert made.unused == tree.manifest.unused
    assert made.disk >= sum(record.bytes for record in tree.manifest.files.values() if record.bytes > 10**6)
    assert made.refused == []


def test_parameters_are_those_of_hugging_face(planned, shapes_checkpoint):
    from transformers import LlavaForConditionalGeneration

    model = LlavaForConditionalGeneration.from_pretrained(shapes_checkpoint)
    unused = set(planned.unused)
    counts = {name: tensor.numel() for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    whole = sum(parameter.numel() for parameter in model.parameters())
    left_out = sum(count for name, count in counts.items() if any(name.endswith(tail) for tail in _tails(unused)))
    assert planned.parameters == whole - left_out


def _tails(names):
    return {name.split("vision_model.")[-1] for name in names}


def test_the_cache_is_that_of_a_full_batch(planned):
    caches = [spec for name, spec in planned.engines["llm"].inputs.items() if name.startswith("past_")]
    assert caches == ["float16[batch, 2, 512, 64]"] * 8
    assert planned.cache == 8 * (2 * 2 * 512 * 64) * 2


def test_a_directory_with_a_configuration_alone_is_enough(planned, shapes_checkpoint, tmp_path):
    shutil.copy(shapes_checkpoint / "config.json", tmp_path)
    outline = plan(LlavaModel.from_pretrained(str(tmp_path)).with_target("tensorrt-rtx").with_batch(2).builders)
    assert outline.shapes == "config.json"
    assert planned.shapes == "checkpoint"
    assert outline.parameters == planned.parameters
    assert outline.engines["llm"].layers == planned.engines["llm"].layers


def test_weights_outside_need_less_memory_and_disk():
    builder = LlmBuilder.from_model(llama(hidden_size=256, vocab_size=16384)).with_target("tensorrt-rtx")
    inside, outside = (plan({"llm": by_weights(builder, place)}) for place in ("embedded", "external"))
    assert outside.memory < inside.memory
    assert outside.disk < inside.disk
    assert outside.weights == pytest.approx(inside.weights, rel=0.01)  # both engines share them


def _inside(model):
    return plan({"llm": LlmBuilder.from_model(model).with_target("tensorrt-rtx")}).engines["llm"]


def test_with_weights_inside_memory_is_that_of_the_parts_compiled_at_once(monkeypatch):
    models = [llama(hidden_size=512, num_hidden_layers=count) for count in (3, 6)]
    few, many = map(_inside, models)
    assert many.engine > 1.5 * few.engine
    assert many.memory == few.memory
    monkeypatch.setattr("ditto.builders.plan.at_once", lambda parts: parts)
    all_at_once = _inside(models[1])
    monkeypatch.setattr("ditto.builders.plan.at_once", lambda parts: 1)
    one = _inside(models[1])
    assert one.memory < few.memory < all_at_once.memory


def test_with_weights_inside_blocks_have_what_they_share_each():
    model, shared = llama(num_hidden_layers=5), llama(num_hidden_layers=5)
    for layer in shared.model.layers:
        layer.mlp = shared.model.layers[0].mlp
    assert _inside(shared).parameters < _inside(model).parameters
    assert _inside(shared).weights == _inside(model).weights


class _Odd(nn.Module):
    """Two operators that no engine has, one of them in two places."""

    def forward(self, hidden):
        return torch.cumprod(torch.cumsum(torch.cumsum(hidden, 2), 2), 2)


def test_every_unsupported_operator_is_named_with_every_place():
    model = llama()
    for layer in model.model.layers:
        layer.mlp = _Odd()
    made = plan({"llm": LlmBuilder.from_model(model).with_target("tensorrt-rtx")})
    assert [refusal.cause for refusal in made.refused] == [
        "`aten.cumsum.default` has no lowering",
        "`aten.cumprod.default` has no lowering",
    ]
    line = _Odd.forward.__code__.co_firstlineno + 1
    for refusal in made.refused:
        assert len(refusal.places) == 2
        for index, place in enumerate(refusal.places):
            assert f"layers.{index}.mlp" in place
            assert f"test_plan.py:{line}" in place
    assert made.engines["llm"].parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("have", ["free_disk", "available_memory"])
def test_a_build_that_cannot_fit_is_refused_before_it_begins(tmp_path, monkeypatch, have):
    monkeypatch.setattr(preflight, have, lambda *_: 1_000_000)
    with pytest.raises(InsufficientResourcesError, match=r"1\.0 MB (are|is)"):
        LlavaModel.from_model(llava()).with_target("tensorrt-rtx").build_all(tmp_path / "tree")
    assert list(tmp_path.iterdir()) == []


def test_a_cache_larger_than_any_gpu_is_warned_about():
    model = LlavaModel.from_model(llava()).with_target("tensorrt-rtx")
    assert plan(model.builders).warnings == []
    (warning,) = plan(model.with_batch(10_000_000).builders).warnings
    assert "more than any GPU has (288.0 GB): lower --batch or --max-seq-len" in warning
