"""Fine-grained FP8 means weight times scale of its block."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from ditto import LlmBuilder
from ditto.checkpoint.formats import check_form
from ditto.errors import CheckpointError
from tests.support.models import llama
from tests.support.quantised import fine_grained, loaded_equals, save_quantised, warnings_of

CONFIG = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [16, 32]}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("block", [(16, 32), (32, 16)])
def test_weights_are_read_exactly(tmp_path, block, dtype):
    config = {**CONFIG, "weight_block_size": list(block)}
    meaning = save_quantised(llama(num_hidden_layers=1), tmp_path, config, fine_grained(block, dtype))
    loaded_equals(LlmBuilder.from_pretrained(str(tmp_path)).source, meaning)


def test_scales_may_be_powers_of_two(tmp_path):
    meaning = save_quantised(llama(num_hidden_layers=1), tmp_path, CONFIG, fine_grained())
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    for name, tensor in tensors.items():
        if name.endswith("weight_scale_inv"):
            tensors[name] = tensor.to(torch.float8_e8m0fnu)
            values = tensors[name.removesuffix("_scale_inv")].double().unflatten(1, (-1, 32)).unflatten(0, (-1, 16))
            exact = values * tensors[name].double()[:, None, :, None]
            meaning.get_parameter(name.removesuffix("_scale_inv")).data = exact.flatten(2, 3).flatten(0, 1).float()
    save_file(tensors, path, metadata={"format": "pt"})
    loaded_equals(LlmBuilder.from_pretrained(str(tmp_path)).source, meaning)


def test_a_scale_on_another_grid_is_refused(tmp_path):
    save_quantised(llama(num_hidden_layers=1), tmp_path, {**CONFIG, "weight_block_size": [32, 16]}, fine_grained())
    with pytest.raises(CheckpointError, match=r"fine-grained FP8: .*scales of shape \[4, 3\], not \[2, 6\]"):
        LlmBuilder.from_pretrained(str(tmp_path)).source.load(torch.float32)


def test_it_is_said_that_activations_stay_float(tmp_path):
    save_quantised(llama(num_hidden_layers=1), tmp_path, CONFIG, fine_grained())
    assert warnings_of(LlmBuilder.from_pretrained(str(tmp_path)).source) == (
        "fine-grained FP8: activations are not quantised: products are computed with the dequantised weights\n"
    )


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"weight_block_size": None}, "weight_block_size is None, not two sizes"),
        ({"weight_block_size": [128]}, r"weight_block_size is \[128\], not two sizes"),
        ({"weight_block_size": [0, 128]}, r"weight_block_size is \[0, 128\], not two sizes"),
        ({"fmt": "e5m2"}, "the format 'e5m2' is not read"),
    ],
)
def test_other_variants_are_refused(tmp_path, stated, message):
    save_quantised(llama(num_hidden_layers=1), tmp_path, {**CONFIG, **stated}, fine_grained())
    with pytest.raises(CheckpointError, match=message):
        check_form(tmp_path)
