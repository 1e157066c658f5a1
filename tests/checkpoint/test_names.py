"""Every parameter finds its tensor, under the names of either transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ditto.checkpoint import CheckpointIndex, CheckpointReader, match_names
from ditto.errors import CheckpointError
from tests.support.models import TRANSFORMERS_5, llama, llava


def reader_of(directory: Path, names: list[str]) -> CheckpointReader:
    """A checkpoint of tensors with these names."""
    save_file({name: torch.zeros(1) for name in names}, directory / "model.safetensors", metadata={"format": "pt"})
    return CheckpointReader(CheckpointIndex.open(directory))


@pytest.mark.parametrize("make", [llama, llava, lambda: llama(tie_word_embeddings=True)])
def test_a_saved_model_matches_itself(make, tmp_path):
    model = make()
    model.save_pretrained(tmp_path)
    reader = CheckpointReader(CheckpointIndex.open(tmp_path))
    names = match_names(model, reader)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        assert torch.equal(reader.tensor(names[name]), parameter)


def test_the_bundled_checkpoint_matches_what_transformers_loads(shapes_checkpoint):
    from transformers import LlavaForConditionalGeneration

    model = LlavaForConditionalGeneration.from_pretrained(shapes_checkpoint)
    reader = CheckpointReader(CheckpointIndex.open(shapes_checkpoint))
    names = match_names(model, reader)
    for name, parameter in model.named_parameters():
        assert torch.equal(reader.tensor(names[name]).float(), parameter.float())
    assert reader.unused() == []


def test_tied_parameters_share_the_tensor_that_is_stored(tmp_path):
    model = llama(tie_word_embeddings=True)
    stored = [name for name in model.state_dict() if name != "lm_head.weight"]
    names = match_names(model, reader_of(tmp_path, stored))
    assert names["lm_head.weight"] == names["model.embed_tokens.weight"] == "model.embed_tokens.weight"


def test_missing_parameters_are_counted_and_named(tmp_path):
    model = llama()
    stored = [name for name in model.state_dict() if "layers.1.mlp" not in name]
    with pytest.raises(CheckpointError, match=r"3 parameters of LlamaForCausalLM have no tensor, e.g. `model.layers.1"):
        match_names(model, reader_of(tmp_path, stored))


def test_a_base_model_checkpoint_gets_its_prefix(tmp_path):
    model = llama()
    names = match_names(model, reader_of(tmp_path, [name.removeprefix("model.") for name in model.state_dict()]))
    assert names["model.layers.0.mlp.up_proj.weight"] == "layers.0.mlp.up_proj.weight"


@pytest.mark.skipif(not TRANSFORMERS_5, reason="transformers 4 has one name for each parameter")
def test_old_names_of_llava_are_renamed(tmp_path):
    model = llava()
    old = [
        name.replace("model.language_model.", "language_model.model.")
        .replace("lm_head", "language_model.lm_head")
        .replace("model.vision_tower.", "vision_tower.vision_model.")
        .replace("model.multi_modal_projector", "multi_modal_projector")
        for name in model.state_dict()
    ]
    names = match_names(model, reader_of(tmp_path, old))
    assert names["lm_head.weight"] == "language_model.lm_head.weight"
    assert len(names) == len(old)


def edited(directory: Path, change) -> CheckpointReader:
    """A saved checkpoint after `change` to its tensors."""
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return CheckpointReader(CheckpointIndex.open(directory))


@pytest.mark.parametrize("makes", ["llama", "llava"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("values", ["equal", "different"])
def test_of_tied_parameters_that_are_both_stored_each_gets_what_transformers_loads(makes, tied, values, tmp_path):
    text = {"tie_word_embeddings": False}
    model = llama(**text) if makes == "llama" else llava(text=text, **text)
    if values == "equal":
        model.get_output_embeddings().weight.data = model.get_input_embeddings().weight.data.clone()
    for config in {id(each): each for each in (model.config, model.config.get_text_config())}.values():
        config.tie_word_embeddings = tied
    model.config.save_pretrained(tmp_path)
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = type(model).from_pretrained(tmp_path)
    fresh, reader = type(model)(model.config), CheckpointReader(CheckpointIndex.open(tmp_path))
    fresh.tie_weights()
    names = match_names(fresh, reader)
    for name, parameter in loaded.named_parameters(remove_duplicate=False):
        assert torch.equal(reader.tensor(names[name]), parameter), name
    ids = {id(each.weight) for each in (fresh.get_input_embeddings(), fresh.get_output_embeddings())}
    assert len(ids) == len(
        {id(each.weight) for each in (loaded.get_input_embeddings(), loaded.get_output_embeddings())}
    )
    assert match_names(fresh, reader) == names  # the second builder of a model finds the same


def test_a_parameter_that_is_stored_twice_is_refused(tmp_path):
    model = llama()
    reader = reader_of(tmp_path, [*model.state_dict(), "norm.weight"])
    with pytest.raises(CheckpointError, match=r"`model.norm.weight` of LlamaForCausalLM twice: as `model.norm.weight`"):
        match_names(model, reader)


@pytest.mark.parametrize(
    ("names", "form"),
    [
        (["model.layers.0.mlp.up_proj.qweight", "model.layers.0.mlp.up_proj.scales"], "GPTQ or AWQ"),
        (["model.layers.0.mlp.up_proj.weight_packed"], "compressed-tensors"),
        (["model.layers.0.mlp.up_proj.base_layer.weight"], "adapter"),
    ],
)
def test_parameters_that_are_missing_for_a_known_reason_are_refused_with_it(names, form, tmp_path):
    model = llama()
    stored = [name for name in model.state_dict() if "layers.0.mlp.up_proj" not in name]
    with pytest.raises(CheckpointError, match=form) as caught:
        match_names(model, reader_of(tmp_path, [*stored, *names]))
    assert "download" not in str(caught.value)
