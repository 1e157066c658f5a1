"""AutoAWQ's files mean what their layout says; other layouts are refused."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from ditto import LlavaModel, LlmBuilder
from ditto.checkpoint.formats import check_form
from ditto.errors import CheckpointError
from tests.support.models import llama, llava
from tests.support.quantised import awq, loaded_equals, save_quantised

CONFIG = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm", "zero_point": True}


@pytest.mark.parametrize("group", [16, 32, -1])
def test_weights_are_read_exactly(tmp_path, group):
    model = llama(num_hidden_layers=1, intermediate_size=64)
    meaning = save_quantised(model, tmp_path, {**CONFIG, "group_size": group}, awq(64 if group < 0 else group))
    loaded_equals(LlmBuilder.from_pretrained(str(tmp_path)).source, meaning)


def test_a_llava_whose_decoder_is_quantised(tmp_path):
    config = {**CONFIG, "modules_to_not_convert": ["vision_tower", "multi_modal_projector"]}
    meaning = save_quantised(llava(), tmp_path, config, awq())
    loaded_equals(LlavaModel.from_pretrained(str(tmp_path)).llm.source, meaning)


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"version": "gemv"}, "AWQ: the version 'gemv' is not read"),
        ({"version": "marlin"}, "the version 'marlin' is not read"),
        ({"backend": "llm-awq"}, "the layout of llm-awq is not read"),
        ({"bits": 3}, "3 bits are not read"),
        ({"group_size": 0}, "group_size is 0"),
        ({"group_size": "32"}, "group_size is '32'"),
    ],
)
def test_other_variants_are_refused(tmp_path, stated, message):
    save_quantised(llama(num_hidden_layers=1), tmp_path, {**CONFIG, **stated}, awq())
    with pytest.raises(CheckpointError, match=message):
        check_form(tmp_path)


def swapped_nibbles(words):
    low, high = words & 0x0F0F0F0F, (words >> 4) & 0x0F0F0F0F
    return (low << 4) | high


@pytest.mark.parametrize("part", ["qweight", "qzeros", "scales"])
def test_every_tensor_matters(tmp_path, part):
    meaning = save_quantised(llama(num_hidden_layers=1), tmp_path, CONFIG, awq())
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    name = f"model.layers.0.self_attn.o_proj.{part}"
    tensors[name] = tensors[name].flip(0).contiguous() if part == "scales" else swapped_nibbles(tensors[name])
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(AssertionError, match=r"layers.0.self_attn.o_proj.weight"):
        loaded_equals(LlmBuilder.from_pretrained(str(tmp_path)).source, meaning)


def test_dtypes_of_scales_are_checked(tmp_path):
    save_quantised(llama(num_hidden_layers=1), tmp_path, CONFIG, awq())
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.0.self_attn.o_proj.scales"] = torch.ones(2, 64, dtype=torch.int32)
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="`scales` of dtype int32"):
        LlmBuilder.from_pretrained(str(tmp_path)).source.load(torch.float32)
