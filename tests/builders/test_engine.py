"""Builders are frozen settings; what they state is checked before any work."""

from __future__ import annotations

import pytest
import torch
from attrs.exceptions import FrozenInstanceError

from ditto import EngineBuilder, LlmBuilder
from ditto.configs import TensorRTBuilderConfig, TensorRTConfig, TensorRTNetworkCreationFlags
from ditto.errors import ConfigError
from tests.support.models import llama


@pytest.fixture(scope="module")
def builder():
    return LlmBuilder.from_model(llama()).with_target("tensorrt-rtx")


def test_the_builder_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        EngineBuilder(source=None)


@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        (lambda b: b.with_batch(8), "max_batch_size", 8),
        (lambda b: b.with_dtype("bfloat16"), "dtype", torch.bfloat16),
        (lambda b: b.with_dtype(torch.float16), "dtype", torch.float16),
        (lambda b: b.with_dtype("auto"), "dtype", "auto"),
        (lambda b: b.with_dtype("fp32"), "dtype", torch.float32),
        (lambda b: b.with_dtype("fp16"), "dtype", torch.float16),
        (lambda b: b.with_dtype("bf16"), "dtype", torch.bfloat16),
        (lambda b: b.with_target("tensorrt"), "target", "tensorrt"),
        (lambda b: b.with_compute_capabilities("8.9", "12.0"), "compute_capabilities", ("8.9", "12.0")),
        (lambda b: b.with_weights("external"), "weights", "external"),
        (lambda b: b.with_max_input_len(7), "max_input_len", 7),
        (lambda b: b.with_max_seq_len(9), "max_seq_len", 9),
        (lambda b: b.with_max_num_tokens(11), "max_num_tokens", 11),
        (lambda b: b.with_prompt_table(13), "max_prompt_embedding_table_size", 13),
        (lambda b: b.with_prompt_table(0), "max_prompt_embedding_table_size", 0),
    ],
)
def test_with_returns_a_copy_and_leaves_the_original(builder, change, field, value):
    before = getattr(builder, field)
    assert getattr(change(builder), field) == value
    assert getattr(builder, field) == before


def test_settings_cannot_be_changed_in_place(builder):
    with pytest.raises(FrozenInstanceError):
        builder.max_batch_size = 3


@pytest.mark.parametrize("batch", [0, -1, 2.5, "4", True, 2**31, 10**30])
def test_a_batch_that_is_no_positive_number_is_refused(builder, batch):
    with pytest.raises(ConfigError, match="the batch limit is"):
        builder.with_batch(batch)


@pytest.mark.parametrize("dtype", ["float64", "int8", "half", torch.float64])
def test_a_dtype_that_engines_do_not_compute_in_is_refused(builder, dtype):
    with pytest.raises(ConfigError, match="is not supported") as caught:
        builder.with_dtype(dtype)
    assert "float32, float16, bfloat16" in str(caught.value)


def test_a_place_for_weights_that_there_is_not_is_refused(builder):
    with pytest.raises(ConfigError, match="'beside' is not a value of weights") as caught:
        builder.with_weights("beside")
    assert "embedded, external" in str(caught.value)


def test_a_compute_capability_that_the_library_does_not_know_is_refused(builder, tmp_path):
    with pytest.raises(ConfigError, match=r"does not build for compute capability 9\.0") as caught:
        builder.with_compute_capabilities("9.0").build(tmp_path / "tree")
    assert "choose from 7.5, 8.0, 8.6, 8.9, 12.0" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_half_precision_is_stated_explicitly_where_weak_typing_is_gone(builder):
    weak = TensorRTConfig(
        network_creation_flags=TensorRTNetworkCreationFlags(strongly_typed=False),
        builder_config=TensorRTBuilderConfig(fp16=True),
    )
    target = builder.resolved_target()
    assert builder.resolved_dtype(target) == torch.float32
    assert builder.with_tensorrt(weak).resolved_dtype(target) == torch.float16


def test_builds_with_different_limits_do_not_disturb_each_other(builder, tmp_path):
    small = builder.with_max_seq_len(16).with_max_input_len(8)
    large = small.with_batch(3).with_max_seq_len(32)
    trees = {name: each.build(tmp_path / name) for name, each in {"small": small, "large": large}.items()}
    again = small.build(tmp_path / "again")
    assert trees["small"].config("llm") == again.config("llm") != trees["large"].config("llm")
    texts = {name: (tree.root / "network.json").read_text() for name, tree in {**trees, "again": again}.items()}
    assert texts["small"] == texts["again"] != texts["large"]


def test_a_failed_build_leaves_nothing_behind(builder, tmp_path):
    with pytest.raises(ConfigError):
        builder.with_max_input_len(60).with_max_seq_len(50).build(tmp_path / "tree")
    assert list(tmp_path.iterdir()) == []
