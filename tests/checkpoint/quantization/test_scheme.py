"""Groups of tensors: what belongs to a quantised weight is known, and what contradicts itself is refused."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from ditto import LlavaModel, LlmBuilder
from ditto.errors import CheckpointError
from ditto.network.quantized import QuantizedWeight
from tests.support.models import llama, llava
from tests.support.quantised import gptq, save_quantised

CONFIG = {"quant_method": "gptq", "bits": 4, "group_size": 32}
PROJECTION = "model.layers.0.mlp.up_proj"


@pytest.fixture
def directory(tmp_path):
    save_quantised(llama(num_hidden_layers=1), tmp_path / "model", CONFIG, gptq())
    return tmp_path / "model"


def change(directory, **tensors):
    """Replace, add or remove (None) tensors of one projection."""
    path = directory / "model.safetensors"
    stored = {**load_file(path), **{f"{PROJECTION}.{part}": tensor for part, tensor in tensors.items()}}
    save_file({name: tensor for name, tensor in stored.items() if tensor is not None}, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"scales": None}, r"GPTQ: `model.layers.0.mlp.up_proj` has no `scales`"),
        ({"scales": torch.ones(2, 96, dtype=torch.int8)}, r"`scales` of dtype int8 and shape \[2, 96\]"),
        ({"scales": torch.ones(192)}, r"`scales` of dtype float32 and shape \[192\]"),
        ({"scales": torch.ones(3, 96)}, r"scales of shape \[96, 3\], not \[96, 2\], for a weight \[96, 64\]"),
        ({"qzeros": torch.full((1, 12), 7, dtype=torch.int32)}, r"zero points of shape \[96, 1\], not \[96, 2\]"),
        ({"g_idx": torch.arange(32, dtype=torch.int32)}, "names other groups than there are"),
        ({"g_idx": torch.full((64,), 2, dtype=torch.int32)}, "names other groups than there are"),
        ({"g_idx": torch.full((64,), -1, dtype=torch.int32)}, "names other groups than there are"),
        ({"qweight": torch.ones(4, 96, dtype=torch.int32)}, "names other groups than there are"),
        ({"weight": torch.ones(96, 64)}, "holds `model.layers.0.mlp.up_proj.weight` twice: as it is, and quantised"),
        ({"k_scale": torch.ones(1)}, "quantised .scaled KV cache"),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else "",
)
def test_tensors_that_do_not_fit_are_refused(directory, tensors, message):
    change(directory, **tensors)
    with pytest.raises(CheckpointError, match=message):
        LlmBuilder.from_pretrained(str(directory)).source.load(torch.float32)


def test_all_tensors_of_a_group_count_as_used(directory):
    source = LlmBuilder.from_pretrained(str(directory)).source
    assert source.unused(frozenset({f"{PROJECTION}.scales"})) == [
        name for name in sorted(source.index.tensors) if not name.startswith(PROJECTION)
    ]


def test_a_tied_head_stays_tied(tmp_path):
    save_quantised(llama(num_hidden_layers=1, tie_word_embeddings=True), tmp_path, CONFIG, gptq())
    loaded = LlmBuilder.from_pretrained(str(tmp_path)).source.load(torch.float32)
    head, embedding = loaded.model.lm_head.weight, loaded.model.get_input_embeddings().weight
    assert loaded.weights[id(head)] == loaded.weights[id(embedding)]


def test_parts_of_a_llava_that_are_not_quantised_stay_as_they_are(tmp_path):
    save_quantised(llava(), tmp_path, CONFIG, gptq())
    loaded = LlavaModel.from_pretrained(str(tmp_path)).llm.source.load(torch.float32)
    names = dict(loaded.model.named_parameters())
    quantised = {name for name, part in names.items() if isinstance(loaded.weights[id(part)], QuantizedWeight)}
    assert quantised == {name for name in names if "language_model" in name and "_proj" in name}


def test_shapes_of_another_model_are_refused(directory):
    path = directory / "config.json"
    path.write_text(path.read_text().replace('"intermediate_size": 96', '"intermediate_size": 128'))
    with pytest.raises(CheckpointError, match=r"has shape \[96, 64\], the model's .* has \[128, 64\]"):
        LlmBuilder.from_pretrained(str(directory)).source.load(torch.float32)
