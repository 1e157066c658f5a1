"""A configuration alone is enough to describe a model, and not to read it."""

from __future__ import annotations

import json

import pytest
import torch

from ditto.builders import Pretrained
from ditto.builders.config_only import ConfigOnlySource
from ditto.errors import CheckpointError
from tests.support.models import llama


@pytest.fixture
def outline(tmp_path):
    model = llama()
    model.config.architectures = ["LlamaForCausalLM"]
    model.config.save_pretrained(tmp_path)
    return model, ConfigOnlySource(Pretrained(str(tmp_path), "AutoModelForCausalLM"))


def test_parameters_have_the_models_names_and_shapes(outline):
    model, source = outline
    loaded = source.load(torch.float16)
    weight_of = loaded.weight_of(loaded.model)
    for name, parameter in model.named_parameters():
        assert weight_of(name).name == name
        assert weight_of(name).shape == tuple(parameter.shape)
        assert weight_of(name).dtype == torch.float16
    assert all(parameter.is_meta for parameter in loaded.model.parameters())


def test_its_numbers_cannot_be_read(outline):
    _, source = outline
    assert source.checkpoint is None
    with pytest.raises(CheckpointError, match=r"`lm_head\.weight` is not at hand: only the configuration is"):
        source.load(torch.float32).tensors.tensor("lm_head.weight")


@pytest.mark.parametrize(("stated", "dtype"), [("bfloat16", torch.bfloat16), (None, torch.float32)])
def test_the_dtype_is_the_configurations(outline, tmp_path, stated, dtype):
    _, source = outline
    path = tmp_path / "config.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "dtype": stated, "torch_dtype": stated}))
    assert source.dtype == dtype
