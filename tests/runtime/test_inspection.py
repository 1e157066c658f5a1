"""A report says what the tree's files and the model's configuration say."""

from __future__ import annotations

import json

import pytest

from ditto import LlmBuilder
from ditto.runtime.inspection import inspect
from tests.support.models import TEXT_MODELS, llama


@pytest.mark.parametrize("name", ["vision", "llm"])
def test_every_layer_but_constants_is_a_row_with_its_place(llava_tree, name):
    engine = inspect(llava_tree).engines[name]
    data = json.loads((llava_tree.directory(name) / "network.json").read_text())
    nodes = [node for node in data["nodes"] if node["layer"]["kind"] != "Constant"]
    assert [row.name for row in engine.layers] == [node["outputs"][0] for node in nodes]
    assert [row.layer.partition("(")[0] for row in engine.layers] == [node["layer"]["kind"] for node in nodes]
    assert [row.module for row in engine.layers] == [node["module"] for node in nodes]
    files = [llava_tree.directory(name) / file for file in llava_tree.component(name).engine_files]
    assert engine.engine_bytes == sum(file.stat().st_size for file in files)
    assert engine.constant_bytes > 0


def test_inputs_that_are_constants_go_by_their_weight(llava_tree):
    rows = inspect(llava_tree).engines["llm"].layers
    assert any("norm.weight" in " ".join(row.inputs) for row in rows)


def test_windows_soft_caps_and_rope_are_among_the_facts(tmp_path):
    model = TEXT_MODELS["gemma2 with soft-caps and windows"]()
    model.save_pretrained(tmp_path / "model")
    builder = LlmBuilder.from_pretrained(str(tmp_path / "model")).with_target("trtllm")
    report = inspect(builder.build(tmp_path / "tree"))
    assert report.facts["sliding_window"] == 5
    assert report.facts["attn_logit_softcapping"] == 3.0
    assert report.facts["final_logit_softcapping"] == 2.0
    stated = report.facts.get("rope_parameters", report.facts)  # transformers 5, and 4
    assert stated["rope_theta"] == 10000.0
    assert report.engines["llm"].engine_bytes == 0
    assert any(row.layer.startswith("GPTAttention") for row in report.engines["llm"].layers)


def test_engines_beside_one_another_are_reported_each(tmp_path):
    builder = (
        LlmBuilder.from_model(llama(num_hidden_layers=3))
        .with_target("tensorrt-rtx")
        .with_optimize("latency")
        .with_tuning("9.0")
    )
    tree = builder.build(tmp_path / "tree")
    report = inspect(tree)
    assert set(report.engines) == set(tree.manifest.components) == {"llm", "llm-decode"}
    for name, engine in report.engines.items():
        files = tree.component(name).engine_files
        assert len(files) == {"llm": 5, "llm-decode": 3}[name]  # prompts write their caches beside
        assert engine.engine_bytes == sum((tree.directory(name) / file).stat().st_size for file in files)
