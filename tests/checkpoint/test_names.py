"""Every parameter finds its tensor, under the names of either transformers."""

from __future__ import annotations

import pytest
import torch

from ditto.checkpoint import CheckpointIndex, CheckpointReader, match_names
from ditto.errors import CheckpointError
from tests.support.models import TRANSFORMERS_5, llama, llava


@pytest.mark.parametrize("make", [llama, llava, lambda: llama(tie_word_embeddings=True)])
def test_a_saved_model_matches_itself(make, tmp_path):
    model = make()
    model.save_pretrained(tmp_path)
    reader = CheckpointReader(CheckpointIndex.open(tmp_path))
    names = match_names(model, reader.index.tensors, str(tmp_path))
    for name, parameter in model.named_parameters(remove_duplicate=False):
        assert torch.equal(reader.tensor(names[name]), parameter)


def test_the_bundled_checkpoint_matches_what_transformers_loads(shapes_checkpoint):
    from transformers import LlavaForConditionalGeneration

    model = LlavaForConditionalGeneration.from_pretrained(shapes_checkpoint)
    reader = CheckpointReader(CheckpointIndex.open(shapes_checkpoint))
    names = match_names(model, reader.index.tensors, "here")
    for name, parameter in model.named_parameters():
        assert torch.equal(reader.tensor(names[name]).float(), parameter.float())
    assert reader.unused() == []


def test_tied_parameters_share_the_tensor_that_is_stored():
    model = llama(tie_word_embeddings=True)
    stored = [name for name in model.state_dict() if name != "lm_head.weight"]
    names = match_names(model, stored, "here")
    assert names["lm_head.weight"] == names["model.embed_tokens.weight"] == "model.embed_tokens.weight"


def test_missing_parameters_are_counted_and_named():
    model = llama()
    stored = [name for name in model.state_dict() if "layers.1.mlp" not in name]
    with pytest.raises(CheckpointError, match=r"3 parameters of LlamaForCausalLM have no tensor, e.g. `model.layers.1"):
        match_names(model, stored, "here")


def test_a_base_model_checkpoint_gets_its_prefix():
    model = llama()
    names = match_names(model, [name.removeprefix("model.") for name in model.state_dict()], "here")
    assert names["model.layers.0.mlp.up_proj.weight"] == "layers.0.mlp.up_proj.weight"


@pytest.mark.skipif(not TRANSFORMERS_5, reason="transformers 4 has one name for each parameter")
def test_old_names_of_llava_are_renamed():
    model = llava()
    old = [
        name.replace("model.language_model.", "language_model.model.")
        .replace("lm_head", "language_model.lm_head")
        .replace("model.vision_tower.", "vision_tower.vision_model.")
        .replace("model.multi_modal_projector", "multi_modal_projector")
        for name in model.state_dict()
    ]
    names = match_names(model, old, "here")
    assert names["lm_head.weight"] == "language_model.lm_head.weight"
    assert len(names) == len(old)
