"""Tensors without a place in the model: those beside tensors in use are refused, parts of their own are not."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from ditto.checkpoint import CheckpointIndex, CheckpointReader, match_names
from ditto.errors import CheckpointError
from tests.support.models import llama, llava

LAYER = "model.layers.0."
PROJECTION = LAYER + "self_attn.q_proj."


def matched(model, directory, *extra, shape=(1,)):
    """Match a checkpoint of all of a model's tensors and some more."""
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name in extra:
        tensors[name] = torch.ones(shape)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return match_names(model, CheckpointReader(CheckpointIndex.open(directory)))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (PROJECTION + "weight_scale", "quantised .compressed-tensors"),
        (PROJECTION + "weight_scale_inv", "quantised .fine-grained FP8"),
        (PROJECTION + "weight_scale_2", "quantised .ModelOpt"),
        (PROJECTION + "weight_zero_point", "quantised .compressed-tensors"),
        (PROJECTION + "input_scale", "quantised"),
        (PROJECTION + "pre_quant_scale", "quantised .ModelOpt"),
        (PROJECTION + "k_scale", "quantised .scaled KV cache"),
        (PROJECTION + "qzeros", "quantised .GPTQ or AWQ"),
        (PROJECTION + "g_idx", "quantised .GPTQ or AWQ"),
        (PROJECTION + "SCB", "quantised .bitsandbytes"),
        (PROJECTION + "weight.absmax", "quantised .bitsandbytes"),
        (PROJECTION + "weight.quant_state.bitsandbytes__nf4", "quantised .bitsandbytes"),
        (PROJECTION + "lora_A.weight", "adapter that is not merged"),
        (PROJECTION + "lora_B.default.weight", "adapter that is not merged"),
        (PROJECTION + "bias", "no place for `model.layers.0.self_attn.q_proj.bias`"),
        (LAYER + "self_attn.q_norm.weight", "no place for"),
        (LAYER + "self_attn.sinks", "no place for"),
        (LAYER + "pre_feedforward_layernorm.weight", "no place for"),
        (LAYER + "mlp.experts.8.up_proj.weight", "no place for"),
        ("model.norm.bias", "no place for"),
        ("lm_head.bias", "no place for"),
        ("model.embed_tokens.weight_scale", "quantised"),
    ],
)
def test_a_tensor_beside_those_in_use_is_refused(name, told, tmp_path):
    with pytest.raises(CheckpointError, match=told) as caught:
        matched(llama(), tmp_path, name)
    assert f"`{name}`" in str(caught.value)
    assert "download" not in str(caught.value)


@pytest.mark.parametrize("part", ["multi_modal_projector.linear_1", "vision_tower", "multi_modal_projector"])
def test_so_it_is_in_the_vision_half(part, tmp_path):
    model = llava()
    known = next(name for name in model.state_dict() if part in name)
    place = known[: known.index(part) + len(part)]
    name = f"{place}.{'linear_3.weight' if part == 'multi_modal_projector' else 'odd'}"
    if part == "vision_tower":
        name = next(each for each in model.state_dict() if "vision_tower" in each and "layers.1.mlp.fc1.weight" in each)
        name += "_scale"
    with pytest.raises(CheckpointError, match=r"no place for|quantised"):
        matched(model, tmp_path, name)


@pytest.mark.parametrize(
    "name",
    [
        LAYER + "self_attn.rotary_emb.inv_freq",
        "model.rotary_emb.inv_freq",
        LAYER + "self_attn.rotary_emb.cos_cached",
        LAYER + "attn.masked_bias",
        "model.embed_positions.position_ids",
        "model.extra.weight",
        "v_head.summary.weight",
        "mtp.fc.weight",
        "model.layers.2.mlp.up_proj.weight",
        "vision_tower.layers.0.fc.weight",
    ],
)
def test_what_is_unused_on_purpose_passes(name, tmp_path):
    model = llama()
    names = matched(model, tmp_path, name)
    assert name not in names.values()
    assert names == {each: each for each in model.state_dict() if each in names}


def test_a_causal_mask_is_not_a_bias(tmp_path):
    assert matched(llama(), tmp_path, LAYER + "attn.bias", shape=(1, 1, 8, 8))
    with pytest.raises(CheckpointError, match="no place for"):
        matched(llama(), tmp_path, LAYER + "attn.bias", shape=(8,))


def test_what_transformers_declares_to_ignore_passes(tmp_path):
    model = llama()
    with pytest.raises(CheckpointError, match="no place for"):
        matched(model, tmp_path, LAYER + "odd.weight")
    model._keys_to_ignore_on_load_unexpected = [r"odd\.weight"]
    assert matched(model, tmp_path, LAYER + "odd.weight")
