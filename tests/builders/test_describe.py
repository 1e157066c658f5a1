"""From a part of a model to its engines: every spec has its network, and builders of one tree agree."""

from __future__ import annotations

import pytest
from attrs import evolve

from ditto import LlavaModel, LlmBuilder
from ditto.builders.describe import common_target, layer_counts
from ditto.errors import ConfigError
from tests.support.describing import engines_of
from tests.support.models import llama, llava


def test_separate_engines_have_a_spec_and_a_network_each():
    builder = LlmBuilder.from_model(llama()).with_target("tensorrt-rtx").with_optimize("latency").with_tuning("9.0")
    engines = engines_of(builder)
    assert [*engines] == ["llm", "llm-decode"]
    for name, engine in engines.items():
        assert engine.spec.name == engine.network.name == name
        assert engine.spec.part == engine.part.name == "llm"
        assert sum(layer_counts(engine.network).values()) == len(engine.network.nodes)


def test_builders_of_one_tree_have_one_target():
    model = LlavaModel.from_model(llava()).with_target("tensorrt-rtx")
    assert common_target(model.builders).name == "tensorrt-rtx"
    with pytest.raises(ConfigError, match="different targets"):
        common_target(evolve(model, vision=model.vision.with_target("trtllm")).builders)


def test_builders_of_one_tree_have_one_model(tmp_path):
    model = LlavaModel.from_model(llava()).with_target("tensorrt-rtx")
    other = evolve(model, vision=LlavaModel.from_model(llava(seed=1)).with_target("tensorrt-rtx").vision)
    with pytest.raises(ConfigError, match="different models"):
        other.build_all(tmp_path / "tree")
    assert not (tmp_path / "tree").exists()
