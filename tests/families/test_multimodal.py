"""A vision-language model keeps its two builders in step; a new family is one small subclass."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from attrs import evolve, frozen

from ditto import LlavaModel, LlmBuilder, MultimodalModel, VisionBuilder
from ditto.errors import CheckpointError, ConfigError, DittoError, ModelError
from tests.support.models import llama, llava


@pytest.fixture(scope="module")
def model():
    return LlavaModel.from_model(llava()).with_target("tensorrt-rtx")


def test_the_class_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        MultimodalModel(llm=None, vision=None)


@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        (lambda m: m.with_batch(6), "max_batch_size", 6),
        (lambda m: m.with_dtype("bfloat16"), "dtype", torch.bfloat16),
        (lambda m: m.with_target("tensorrt"), "target", "tensorrt"),
        (lambda m: m.with_compute_capabilities("8.6"), "compute_capabilities", ("8.6",)),
    ],
)
def test_both_builders_follow(model, change, field, value):
    changed = change(model)
    assert getattr(changed.llm, field) == getattr(changed.vision, field) == value
    assert getattr(model.llm, field) != value


def test_the_prompt_table_grows_with_the_batch(model):
    assert model.with_batch(1).llm.limits.max_prompt_embedding_table_size == 16
    assert model.with_batch(5).llm.limits.max_prompt_embedding_table_size == 80
    assert model.with_batch(5).with_prompt_table(100).llm.limits.max_prompt_embedding_table_size == 100


def test_limits_follow_from_images_and_tiles(model):
    changed = model.with_batch(2).with_max_images(3).with_max_tiles(2)
    assert changed.llm.limits.max_prompt_embedding_table_size == 2 * 3 * 2 * 16
    assert changed.vision.max_batch_size == 2 * 3 * 2
    assert changed.with_batch(1).vision.max_batch_size == 3 * 2
    assert changed.with_vision_batch(4).vision.max_batch_size == 4
    for wrong in (0, -1, "2"):
        with pytest.raises(ConfigError, match="max_images is"):
            model.with_max_images(wrong)
        with pytest.raises(ConfigError, match="max_tiles is"):
            model.with_max_tiles(wrong)


def test_prompts_have_room_for_all_images():
    many = LlavaModel.from_model(llava(text={"max_position_embeddings": 8192})).with_max_images(400)
    limits = many.llm.limits
    assert limits.max_input_len > 400 * 16 and limits.max_seq_len > limits.max_input_len
    assert many.with_max_images(1).llm.limits.max_seq_len == 4096


def test_the_vision_batch_may_differ(model):
    changed = model.with_batch(2).with_vision_batch(8)
    assert (changed.llm.max_batch_size, changed.vision.max_batch_size) == (2, 8)


def test_limits_of_the_language_model_can_be_set(model):
    made = model.with_max_input_len(20).with_max_seq_len(40).with_max_num_tokens(99).with_opt_input_len(18)
    limits = made.llm.limits
    assert (limits.max_input_len, limits.max_seq_len, limits.max_num_tokens, limits.opt_input_len) == (20, 40, 99, 18)


def test_builders_can_be_taken_out(model):
    assert isinstance(model.llm, LlmBuilder)
    assert isinstance(model.vision, VisionBuilder)
    assert list(model.builders) == ["vision", "llm"]


def test_another_family_is_refused(tmp_path):
    llama().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="this is a 'llama' model, not 'llava'"):
        LlavaModel.from_pretrained(str(tmp_path))


def test_a_new_family_is_a_small_subclass(tmp_path):
    @frozen(kw_only=True, slots=False)
    class Squared(LlavaModel):
        """A LLaVA whose features are squared."""

        model_type: ClassVar[str] = "llava"

        @classmethod
        def encoder(cls, config):
            own = LlavaModel.encoder(config)
            return evolve(own, module=lambda model: torch.nn.Sequential(own.module(model), Square()))

    tree = Squared.from_model(llava()).with_target("tensorrt-rtx").build_all(tmp_path / "tree")
    assert tree.component("vision").outputs == {"encoder_output": "float32[batch, 16, 64]"}


def test_a_tower_with_other_rows_than_expected_is_refused(tmp_path):
    @frozen(kw_only=True, slots=False)
    class Miscounted(LlavaModel):
        """A family that forgets the class token."""

        model_type: ClassVar[str] = "llava"

        @classmethod
        def encoder(cls, config):
            own = LlavaModel.encoder(config)
            return evolve(own, rows=own.rows - 1)

    with pytest.raises(ModelError, match="makes 16 image tokens of an image, 15 were expected"):
        Miscounted.from_model(llava()).with_target("trtllm").build_all(tmp_path / "tree")
    assert list(tmp_path.iterdir()) == []


class Square(torch.nn.Module):
    def forward(self, x):
        return x * x


def test_one_failing_engine_leaves_no_tree(model, tmp_path):
    with pytest.raises(DittoError):
        model.with_max_seq_len(1000).build_all(tmp_path / "tree")
    assert list(tmp_path.iterdir()) == []
