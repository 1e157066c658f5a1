"""Models come from directories without being loaded, or from memory without being touched."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from ditto import LlmBuilder
from ditto.builders import Pretrained
from ditto.errors import CheckpointError
from ditto.network.weight import Folded, Stored
from tests.support.models import llama


def pretrained(directory):
    return Pretrained(str(directory), "AutoModelForCausalLM")


@pytest.fixture
def directory(tmp_path):
    llama(tie_word_embeddings=True).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_checkpoint_is_read_without_loading_its_weights(directory):
    loaded = pretrained(directory).load(torch.float32)
    assert all(parameter.is_meta for parameter in loaded.model.parameters())
    assert torch.isfinite(loaded.model.model.rotary_emb.inv_freq).all()


def test_weights_are_references_cast_where_the_dtype_differs(directory):
    source = pretrained(directory)
    assert all(isinstance(weight, Stored) for weight in source.load(torch.float32).weights.values())
    for weight in source.load(torch.float16).weights.values():
        assert isinstance(weight, Folded)
        assert (weight.op, weight.dtype) == ("cast", torch.float16)


def test_builders_of_one_dtype_share_the_model(directory):
    source = pretrained(directory)
    first, second, other = (source.load(dtype) for dtype in (torch.float16, torch.float16, torch.float32))
    assert first.model is second.model and first.weights.keys() == second.weights.keys()
    assert other.model is not first.model
    assert {parameter.dtype for parameter in first.model.parameters()} == {torch.float16}


def test_the_dtype_is_the_configurations_or_what_most_weights_have(directory):
    assert pretrained(directory).dtype == torch.float32
    config = json.loads((directory / "config.json").read_text())
    config.pop("dtype", None)
    config.pop("torch_dtype", None)
    (directory / "config.json").write_text(json.dumps(config))
    tensors = {name: tensor.bfloat16() for name, tensor in load_file(directory / "model.safetensors").items()}
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    assert pretrained(directory).dtype == torch.bfloat16


def test_tensors_that_no_engine_uses_are_named(directory, tmp_path):
    tensors = load_file(directory / "model.safetensors")
    save_file(
        {**tensors, "model.extra.weight": torch.ones(3)}, directory / "model.safetensors", metadata={"format": "pt"}
    )
    tree = LlmBuilder.from_pretrained(str(directory)).with_target("tensorrt-rtx").build(tmp_path / "tree")
    assert tree.manifest.unused == ["model.extra.weight"]


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "no-such-directory", "a/b/c"])
def test_a_directory_that_is_not_there_is_named(name):
    with pytest.raises(CheckpointError, match="no such checkpoint directory") as caught:
        _ = pretrained(name).directory
    assert name in str(caught.value)


def test_a_hub_id_that_cannot_be_had_says_so(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(CheckpointError, match="cannot get the checkpoint from the hub"):
        _ = pretrained("nobody/no-such-model").directory


def test_a_directory_without_configuration_says_so(directory):
    (directory / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        _ = pretrained(directory).config


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config.update(model_type="no-such-type"),
        lambda config: config.clear(),
    ],
)
def test_a_configuration_that_transformers_does_not_know_is_refused(directory, change):
    config = json.loads((directory / "config.json").read_text())
    change(config)
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="transformers cannot read the configuration"):
        _ = pretrained(directory).config


@pytest.mark.parametrize("values", [{"hidden_size": 63}, {"num_hidden_layers": "two"}, {"num_attention_heads": 0}])
def test_a_configuration_with_impossible_values_is_refused(directory, values):
    config = {**json.loads((directory / "config.json").read_text()), **values}
    config.pop("head_dim", None)
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"configuration|shape"):
        LlmBuilder.from_pretrained(str(directory)).with_target("tensorrt-rtx").build(directory.parent / "tree")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"hidden_act": "nonsense"}, "nonsense"),
        ({"hidden_size": 0}, "`hidden_size` is 0"),
        ({"num_attention_heads": 3, "head_dim": 16}, "(?s)heads.*3|has shape"),
        ({"rope_scaling": {"rope_type": "odd"}, "rope_parameters": {"rope_type": "odd", "rope_theta": 1e4}}, "odd"),
    ],
)
def test_an_impossible_configuration_is_refused_with_the_reason(directory, values, told):
    config = {**json.loads((directory / "config.json").read_text()), **values}
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=told) as caught:
        pretrained(directory).load(torch.float32)
    assert not caught.value.cause.endswith(":")


def test_a_tensor_of_another_shape_is_named(directory):
    tensors = load_file(directory / "model.safetensors")
    tensors["model.norm.weight"] = torch.ones(65)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"`model.norm.weight` has shape \[65\], the model's .* has \[64\]"):
        pretrained(directory).load(torch.float32)


def test_only_text_and_safetensors_go_into_the_tree(shapes_checkpoint, tmp_path):
    shutil.copytree(shapes_checkpoint, tmp_path / "model")
    (tmp_path / "model" / "modeling_evil.py").write_text("raise SystemExit")
    (tmp_path / "model" / "pytorch_model.bin").write_bytes(b"pickle")
    pretrained(tmp_path / "model").copy_processor(tmp_path / "processor")
    names = {path.name for path in (tmp_path / "processor").iterdir()}
    assert names == {path.name for path in shapes_checkpoint.iterdir()} - {"model.safetensors"}
