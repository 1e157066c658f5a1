"""LLaVA's facts follow from its configuration."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch
from transformers import (
    BeitConfig,
    CLIPVisionConfig,
    DeiTConfig,
    Dinov2Config,
    Dinov2WithRegistersConfig,
    LlamaConfig,
    LlavaConfig,
    PixtralVisionConfig,
    SiglipVisionConfig,
    ViTConfig,
)

from ditto import LlavaModel
from ditto.cli.main import main
from ditto.errors import CheckpointError
from ditto.reference import RELATIVE_ERROR, relative_error
from ditto.runtime import open_session
from tests.support.images import features
from tests.support.models import LLAVA_MODELS, TEXT, VISION, image_features, llava


@pytest.mark.parametrize("name", LLAVA_MODELS)
def test_tokens_per_image_are_hugging_faces(name):
    model = LLAVA_MODELS[name]()
    wanted = image_features(model, torch.zeros(1, 3, 28, 28)).shape[1]
    assert LlavaModel.encoder(model.config).rows == wanted


WIDE = {name: size for name, size in VISION.items() if name != "intermediate_size"}
OTHER_TOWERS = [
    ViTConfig(**VISION),
    BeitConfig(**VISION),
    DeiTConfig(**VISION),
    Dinov2Config(**WIDE, mlp_ratio=2),
    Dinov2WithRegistersConfig(**WIDE, mlp_ratio=2, num_register_tokens=3),
]


@pytest.mark.parametrize("tower", OTHER_TOWERS, ids=lambda tower: tower.model_type)
def test_rows_of_other_towers_are_counted(tower, tmp_path):
    model = llava(tower, vision_feature_layer=-1)
    pixels = torch.randn(1, 3, 28, 28)
    tree = LlavaModel.from_model(model).with_target("trtllm").build_all(tmp_path / "tree")
    found, wanted = features(open_session(tree, "reference"), pixels), image_features(model, pixels)
    assert relative_error(found, wanted) < RELATIVE_ERROR[torch.float32]
    assert tree.config("llm")["build_config"]["max_prompt_embedding_table_size"] == wanted.shape[1]


def test_pixels_have_the_towers_shape():
    assert LlavaModel.encoder(llava().config).inputs["input"].shape[1:] == (3, 28, 28)


PAIRS = [
    (ViTConfig, {"image_size": [28, 28], "patch_size": [7, 7]}),
    (ViTConfig, {"image_size": [28, 42]}),
    (ViTConfig, {"patch_size": [7, 14]}),
    (BeitConfig, {"image_size": (28, 42), "patch_size": (14, 7)}),
]


@pytest.mark.parametrize(("tower", "sizes"), PAIRS, ids=str)
def test_sizes_may_be_pairs(tower, sizes, tmp_path):
    model = llava(tower(**{**VISION, "num_hidden_layers": 1, **sizes}), vision_feature_layer=-1)
    _, _, height, width = LlavaModel.encoder(model.config).inputs["input"].shape
    assert [height, width] == list(sizes.get("image_size", (28, 28)))
    pixels = torch.randn(1, 3, height, width)
    tree = LlavaModel.from_model(model).with_target("trtllm").build_all(tmp_path / "tree")
    found, wanted = features(open_session(tree, "reference"), pixels), image_features(model, pixels)
    assert relative_error(found, wanted) < RELATIVE_ERROR[torch.float32]
    assert LlavaModel.encoder(model.config).rows == wanted.shape[1]


@pytest.mark.parametrize("name", ["image_size", "patch_size"])
@pytest.mark.parametrize(("value", "told"), [([14, 14], "give 14 in config.json"), ([28, 14], "square images")])
@pytest.mark.parametrize("tower", [CLIPVisionConfig, SiglipVisionConfig])
def test_pairs_that_transformers_does_not_take_are_refused_by_name(tower, name, value, told, tmp_path, capsys):
    config = LlavaConfig(vision_config=tower(**VISION), text_config=LlamaConfig(**TEXT), image_token_index=127)
    config.save_pretrained(tmp_path)
    stated = json.loads((tmp_path / "config.json").read_text())
    stated["vision_config"][name] = value
    (tmp_path / "config.json").write_text(json.dumps(stated))
    assert main(["-q", "plan", str(tmp_path), "--target", "tensorrt-rtx"]) == 2
    message = capsys.readouterr().err
    assert f"`vision_config.{name}` is {value}" in message
    assert told in message


@pytest.mark.parametrize("tower", [Dinov2Config, Dinov2WithRegistersConfig])
def test_so_are_wide_images_of_towers_that_cannot_place_their_patches(tower):
    config = LlavaConfig(vision_config=tower(**{**WIDE, "image_size": [28, 42]}), text_config=LlamaConfig(**TEXT))
    with pytest.raises(CheckpointError, match=r"`vision_config.image_size` is \[28, 42\]; .* accepts square images"):
        LlavaModel.encoder(config)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, "vision_feature_select_strategy is 'default': the first patch of an image would be dropped"),
        ({"vision_feature_select_strategy": "full", "vision_feature_layer": 4}, "vision_feature_layer is 4"),
    ],
)
def test_what_pixtrals_tower_cannot_do_is_refused(settings, reason):
    config = LlavaConfig(vision_config=PixtralVisionConfig(**VISION), text_config=LlamaConfig(**TEXT), **settings)
    with pytest.raises(CheckpointError, match=reason):
        LlavaModel.encoder(config)


def test_pixtrals_tower_needs_transformers_5(tmp_path):
    settings = {"vision_feature_select_strategy": "full"}
    vision, text = PixtralVisionConfig(**VISION), LlamaConfig(**TEXT)
    LlavaConfig(vision_config=vision, text_config=text, **settings).save_pretrained(tmp_path)
    version = patch("transformers.__version__", "4.51.3")
    with version, pytest.raises(CheckpointError, match="need transformers 5; 4.51.3 is installed"):
        LlavaModel.from_pretrained(str(tmp_path))


def test_an_unknown_select_strategy_is_refused():
    vision = SimpleNamespace(model_type="clip_vision_model", image_size=28, patch_size=7)
    config = SimpleNamespace(
        vision_feature_select_strategy="median", vision_config=vision
    )  # transformers 5 would refuse it itself
    with pytest.raises(CheckpointError, match="vision_feature_select_strategy is 'median'"):
        LlavaModel.encoder(config)


@pytest.mark.parametrize("layer", [4, -5, [-1, 9], []])
def test_feature_layers_that_the_tower_does_not_have_are_refused(layer):
    model = llava(vision_feature_layer=-1)
    model.config.vision_feature_layer = layer
    with pytest.raises(CheckpointError, match=re.escape(f"vision_feature_layer is {layer}, the tower has 3 layers")):
        LlavaModel.from_model(model)


def test_images_without_features_are_refused():
    one_patch = SiglipVisionConfig(**{**VISION, "patch_size": 28})
    with pytest.raises(CheckpointError, match="an image becomes no features"):
        LlavaModel.from_model(llava(one_patch))
    LlavaModel.from_model(llava(one_patch, vision_feature_select_strategy="full"))


def test_a_checkpoint_and_the_same_model_in_memory_give_the_same_configs(tmp_path):
    model = llava()
    model.save_pretrained(tmp_path / "model")
    trees = [
        made.with_batch(2).with_target("tensorrt-rtx").build_all(tmp_path / name)
        for name, made in {
            "directory": LlavaModel.from_pretrained(str(tmp_path / "model")),
            "memory": LlavaModel.from_model(model),
        }.items()
    ]
    for name in ("vision", "llm"):
        assert trees[0].config(name) == trees[1].config(name)
        assert trees[0].component(name).layers == trees[1].component(name).layers
    assert trees[0].manifest.checkpoint is not None
    assert trees[1].component("llm").weights == "weights.safetensors"
